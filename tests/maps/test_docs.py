"""docs/maps.md and docs/papers.md say what the registry says.

``python tests/maps/test_docs.py`` writes them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from exporter.maps import METHODS

PAGE = Path(__file__).parents[2] / "docs" / "maps.md"
PAPERS = PAGE.with_name("papers.md")
BEGIN, END = "<!-- written from the registry -->\n", "<!-- end -->"


def sections() -> str:
    """Return what the page must say of every method."""
    parts = []
    for name, method in METHODS.items():
        record, needs = method.record, method.needs
        sources = {"activations": needs.activations, "gradients": needs.gradients}
        sources["the classifier's weights"] = needs.classifier
        sources["attention weights"] = needs.attention
        sources["passes of its own"] = needs.passes is not None
        ends = "yes" if record.relu else "no"
        parts.append(
            f"### {record.title} (`{name}`)\n\n{record.shows}\n\n"
            f"    {record.formula}\n\n"
            f"- Needs: {', '.join(source for source, needed in sources.items() if needed)}\n"
            f"- Definition ends in a ReLU: {ends}\n"
            + "".join(_settings(record.settings))
            + f"- Cost: {record.cost}\n"
            f"- Caveat: {record.caveats}\n"
            f"- Paper: [{record.paper}]({record.url})\n"
        )
    return "\n".join(parts)


def _settings(settings: Mapping[str, str]) -> list[str]:
    if not settings:
        return []
    return [f"- Settings: {', '.join(f'`{name}={value}`' for name, value in settings.items())}\n"]


def papers() -> str:
    """Return the bibliography: each paper once, with the methods that are taken from it."""
    names: dict[tuple[str, str], list[str]] = {}
    for method in METHODS.values():
        names.setdefault((method.record.paper, method.record.url), []).append(f"`{method.name}`")
    entries = sorted(
        f"- {paper}. <{url}> ({', '.join(of)})\n" for (paper, url), of in names.items()
    )
    return (
        "# Papers\n\nThe papers of the map methods, with the names that `--map` understands."
        " Written from the registry by\n`python tests/maps/test_docs.py`.\n\n" + "".join(entries)
    )


def test_the_bibliography_names_every_method() -> None:
    assert PAPERS.read_text(encoding="utf-8") == papers(), "run: python tests/maps/test_docs.py"
    for name in METHODS:
        assert f"`{name}`" in papers()


def test_the_page_says_what_the_registry_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    found = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    assert found == sections(), "run: python tests/maps/test_docs.py"


if __name__ == "__main__":
    old = PAGE.read_text(encoding="utf-8")
    before, after = old[: old.index(BEGIN) + len(BEGIN)], old[old.index(END) :]
    PAGE.write_text(before + sections() + after, encoding="utf-8")
    PAPERS.write_text(papers(), encoding="utf-8")
