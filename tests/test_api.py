"""docs/api.md says what the code says: it is written from signatures and docstrings.

``python tests/test_api.py`` writes the page again, and exporter/__init__.pyi, the stub that gives
editors and type checkers every setting as an argument. The examples on the page are
the docstrings' doctests, which run with the rest.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

import exporter
from exporter.arguments import describe_settings

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
STUB = ROOT / "exporter" / "__init__.pyi"

SECTIONS = {
    "Runs": ("exporter.export", "exporter.open_run", "exporter.Run"),
    "A run in parts": ("exporter.plan", "exporter.work", "exporter.finish"),
    "A training": (
        "exporter.Watcher",
        "exporter.integrations.lightning.MapsCallback",
        "exporter.integrations.transformers.MapsCallback",
    ),
    "Comparisons": ("exporter.compare", "exporter.open_comparison", "exporter.Comparison"),
    "Figures and tables": ("exporter.figure", "exporter.table", "exporter.publish.Table"),
    "Sharing": (
        "exporter.wandb_report",
        "exporter.publish.WandbReport",
        "exporter.publish_site",
        "exporter.publish.Site",
    ),
    "Supplements": ("exporter.pack", "exporter.publish.Packed"),
    "Maps of a batch": ("exporter.compute_maps",),
    "Image sources": (
        "exporter.images.Source",
        "exporter.images.Entry",
        "exporter.images.hash_contents",
        "exporter.images.is_image_name",
        "exporter.images.natural",
    ),
    "A map of your own": (
        "exporter.method",
        "exporter.maps.Terms",
        "exporter.maps.Needs",
        "exporter.maps.Passes",
        "exporter.maps.PassContext",
    ),
    "A writer of your own": (
        "exporter.writers.Writer",
        "exporter.writers.WriterOptions",
        "exporter.records.Written",
        "exporter.writers.montages.montage_jpegs",
    ),
    "An engine of your own": (
        "exporter.engines.Engine",
        "exporter.engines.Job",
        "exporter.engines.Recipe",
        "exporter.engines.compute_shard",
    ),
    "Errors": ("exporter.errors",),
}
"""What is public, by the heading it stands under: functions, classes, or a module's classes."""


def page() -> str:
    """Return docs/api.md as it should be."""
    lines = [
        "# The Python API",
        "",
        "Written from signatures and docstrings by `python tests/test_api.py`; the tests run every",
        "example. What is not on this page may change without notice.",
        "",
    ]
    package = griffe.load("exporter", search_paths=[str(ROOT)], docstring_parser="google")
    for heading, names in SECTIONS.items():
        lines += [f"## {heading}", ""]
        for name in names:
            lines += _described(package, name)
        if heading == "Runs":
            lines += _settings()
    return "\n".join(lines).rstrip() + "\n"


def stub() -> str:
    """Return exporter/__init__.pyi as it should be: what editors and type checkers complete."""
    homes: dict[str, str] = vars(exporter)["_HOMES"]
    written = {name: getattr(exporter, name) for name in ("export", "plan")}
    lines = [
        "# The public interface with every setting as an argument, for editors and type checkers.",
        "# Written by tests/test_api.py.",
        "",
        "from collections.abc import Mapping, Sequence",
        "from pathlib import Path",
        "from typing import Any, Literal",
        "",
        "from torch import nn",
        "",
        *sorted(
            f"from {home} import {name} as {name}"
            for name, home in homes.items()
            if name not in written
        ),
        "from exporter.watch import Watch",
        "",
        "__all__ = [",
        *(f'    "{name}",' for name in exporter.__all__),
        "]",
        "",
        "__version__: str",
        "",
    ]
    for name, function in written.items():
        parts = list(inspect.signature(function).parameters.values())
        first = next(n for n, part in enumerate(parts) if part.kind is part.KEYWORD_ONLY)
        shown = [
            f"    {part.name}: {part.annotation}"
            + ("," if part.default is part.empty else f" = {_literal(part.default)},")
            for part in parts
        ]
        lines += [f"def {name}(", *shown[:first], "    *,", *shown[first:], ") -> Run: ..."]
    return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    """Write a default as ruff would."""
    return repr(value).replace("'", '"')


def _settings() -> Iterator[str]:
    yield from ("### Settings", "")
    yield from ("Keyword arguments of `exporter.export` and `exporter.plan`:", "")
    for name, (kind, default, text) in describe_settings().items():
        yield f"- `{name}: {kind} = {_literal(default)}`: {text}"
    yield ""


def _described(package: Any, name: str) -> Iterator[str]:
    documented = _home(package, name)
    if documented.is_module:
        yield from _text(documented)
        for child in documented.classes.values():
            yield from _entry(child, f"{name}.{child.name}")
        return
    yield from _entry(documented, name)
    if documented.is_class:
        for child in documented.members.values():
            if child.is_public and child.docstring and (child.is_function or child.is_attribute):
                yield from _entry(child, f"{documented.name}.{child.name}", depth=4)


def _home(package: Any, name: str) -> Any:
    """Find what a public name stands for: a lazy name of the package is looked up in its home."""
    path = name.removeprefix("exporter.")
    homes: dict[str, str] = vars(exporter)["_HOMES"]
    if path in homes:
        path = f"{homes[path]}.{path}".removeprefix("exporter.")
    found = package[path]
    return found.final_target if found.is_alias else found


def _entry(documented: Any, name: str, *, depth: int = 3) -> Iterator[str]:
    yield from (f"{'#' * depth} `{name}`", "")
    if documented.is_function:
        yield from ("```python", _signature(documented), "```", "")
    elif documented.is_class and any(
        str(base) not in ("Exception", "Protocol") for base in documented.bases
    ):
        yield from (f"A kind of `{documented.bases[0]}`.", "")
    yield from _text(documented)


def _signature(function: Any) -> str:
    """Lay a signature out as ruff would: on one line where it fits, else a parameter per line."""
    whole = str(function.signature())
    if len(whole) <= 88:
        return whole
    opening, _, rest = whole.partition("(")
    inside, _, ending = rest.rpartition(")")
    parts, level, start = [], 0, 0
    for place, character in enumerate(inside):
        level += (character in "[({") - (character in "])}")
        if character == "," and level == 0:
            parts.append(inside[start:place].strip())
            start = place + 1
    parts.append(inside[start:].strip())
    return "\n".join((f"{opening}(", *(f"    {part}," for part in parts), f"){ending}"))


def _text(documented: Any) -> Iterator[str]:
    if documented.docstring is None:
        return
    for section in documented.docstring.parsed:
        kind, value = section.kind.value, section.value
        if kind == "text":
            yield from (_flowing(value, lines=True), "")
        elif kind in ("parameters", "attributes"):
            yield from (f"{kind.capitalize()}:", "")
            yield from (f"- `{item.name}`: {_flowing(item.description)}" for item in value)
            yield ""
        elif kind in ("returns", "yields"):
            yield from (
                f"{kind.capitalize()}: " + " ".join(_flowing(v.description) for v in value),
                "",
            )
        elif kind == "raises":
            yield from ("Raises:", "")
            yield from (f"- `{item.annotation}`: {_flowing(item.description)}" for item in value)
            yield ""
        elif kind == "examples":
            for part, text in value:
                fenced = part.value == "examples"
                yield from (("```pycon", text, "```", "") if fenced else (text, ""))


def _flowing(text: str, *, lines: bool = False) -> str:
    """Write a docstring's text as Markdown, in one line unless ``lines``."""
    return (text if lines else " ".join(text.split())).replace("``", "`")


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/test_api.py"


def test_the_stub_is_current() -> None:
    assert STUB.read_text(encoding="utf-8") == stub(), "run: python tests/test_api.py"


def test_everything_public_has_an_example() -> None:
    package = griffe.load("exporter", search_paths=[str(ROOT)], docstring_parser="google")
    names = [name for section in SECTIONS.values() for name in section]
    for name in ("exporter.errors.ExporterError", *names):
        documented = _home(package, name)
        # One error shows how all are caught, and a function's own example what it returns.
        if not documented.is_module and name != "exporter.publish.Packed":
            sections = documented.docstring.parsed
            examples = [part for part in sections if part.kind.value == "examples"]
            assert examples, f"{name} has no example"


def test_everything_public_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in set(exporter.__all__) - {"__version__"}:
        assert f"### `exporter.{name}`" in text, f"exporter.{name} is not in SECTIONS"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    STUB.write_text(stub(), encoding="utf-8")
