"""The documentation says what the program says: every command's help is in docs/cli.md.

``python tests/test_docs.py`` writes the page again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from exporter.cli import group, main
from exporter.store import open_run

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "cli.md"


def commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield a command by its full name, and those below it."""
    yield name, command
    if isinstance(command, click.Group):
        for own, part in command.commands.items():
            yield from commands(f"{name} {own}", part)


def page() -> str:
    """Return docs/cli.md as it should be."""
    parts = [
        "# The command line\n",
        "Written from the program's own help by `python tests/test_docs.py`.\n",
        "Exit codes: 0 done; 2 a bad request, one clear line; 3 done, but some images could not",
        "be read (they are listed); 130 interrupted by Ctrl-C or SIGTERM: `--resume` continues",
        "from there. A second signal ends a command at once; otherwise it ends within a minute.\n",
    ]
    for name, command in commands("exporter", group):
        context = click.Context(
            command,
            info_name=name,
            max_content_width=100,
            terminal_width=100,
            # A command keeps its first context's help option: the group's, in the program.
            help_option_names=group.context_settings["help_option_names"],
        )
        parts.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def test_the_command_line_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/test_docs.py"


@pytest.mark.parametrize(
    "path", sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]), ids=lambda path: path.name
)
def test_every_link_between_pages_leads_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?[^)]*\)", _prose(path)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        page = path.parent / target if target else path
        assert page.exists(), f"{path.name} links to {target}"
        if anchor and page.suffix == ".md":
            assert anchor in _anchors(page), f"{path.name} links to {target}#{anchor}"


@pytest.mark.slow
def test_the_file_of_settings_runs_as_it_stands_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    (settings,) = re.findall(r"^```toml\n(.*?)^```", page, flags=re.DOTALL | re.M)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "run.toml").write_text(settings)
    here = tmp_path / "here"
    shutil.copytree(ROOT / "examples" / "photos", here / "photos")
    (here / "my_model.py").write_text("from tests.small import small as build\n")
    (here / "classes.txt").write_text("a\nb\nc\nd\n")
    torch = pytest.importorskip("torch")
    torch.save(import_module("tests.small").small().state_dict(), here / "epoch12.pt")
    monkeypatch.chdir(here)
    assert main(["run", "--config", "../kept/run.toml"]) == 0
    run = open_run(here / "runs" / "first")
    assert [method.name for method in run.plan.methods] == ["gradcam", "layercam"]
    assert run.plan.model.preprocessing.size == (224, 224)
    html = (run.path / "html" / "index.html").read_text("utf-8")
    assert "First look" in html
    assert run.plan.model.checkpoint == "epoch12.pt"


def _prose(path: Path) -> str:
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)


def _anchors(path: Path) -> set[str]:
    """Return what a page's headings are linked by, and the ids that it sets itself."""
    headings = re.findall(r"^#+ (.+)$", _prose(path), flags=re.M)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'(?:id|name)="([^"]+)"', path.read_text(encoding="utf-8")))


def test_the_architecture_names_every_room_and_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "exporter"
    names = [f"`{file.name}`" for file in package.glob("[a-z]*.py")]
    names += [f"`{file.parent.name}/`" for file in package.glob("*/__init__.py")]
    assert [name for name in names if name not in text] == []


def test_the_readme_names_the_two_commands_first() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = text.index("make demo")
    assert first < text.index("make test") < 2500


def kinds() -> Iterator[tuple[str, list[tuple[str, list[str]]], int]]:
    """Yield what docs/reliability.md says of each kind: files, parts of tests' names, how many."""
    for line in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith("| nr"):
            _, kind, _, tests, count, _ = line.strip("| ").split(" | ")
            named = re.findall(r"`([\w/]+\.py)`(?: \(([^)]*)\))?", tests)
            files = [
                (file if "/" in file else f"tests/hostile/{file}", re.findall(r"`(\w+)`", parts))
                for file, parts in named
            ]
            yield kind, files, sum(map(int, re.findall(r"(\d+)\b(?! moments)", count)))


def test_each_kind_of_fault_names_tests_that_are_there() -> None:
    rows = list(kinds())
    assert len(rows) >= 27
    for kind, files, count in rows:
        assert files and count, kind
        for file, parts in files:
            text = (ROOT / file).read_text(encoding="utf-8")
            assert "def test_" in text
            for part in parts:
                assert re.search(rf"def test_\w*{part}", text), f"{kind}: {file} has no {part}"


def test_the_27_kinds_are_all_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    numbers = re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE)
    assert sorted(int(n) for each in numbers for n in each.split(", ")) == list(range(1, 28))


def test_as_many_situations_are_tried_as_are_said(request: pytest.FixtureRequest) -> None:
    config = request.config
    if config.option.markexpr or config.option.keyword or any("::" in arg for arg in config.args):
        pytest.skip("only some tests were collected")
    tests = [item.nodeid.partition("[")[0].partition("::") for item in request.session.items]
    there = {file for file, _, _ in tests}
    for kind, files, count in kinds():
        if there.issuperset(file for file, _ in files):
            tried = sum(
                sum(own == file and any(p in name for p in parts or [""]) for own, _, name in tests)
                for file, parts in files
            )
            assert tried >= count, f"{kind}: {tried}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
