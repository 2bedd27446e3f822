"""How large the package's parts may be.

``python tests/test_house.py`` prints what docs/decisions/014-weight.md says of each room.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "exporter"


@cache
def trees() -> dict[Path, ast.Module]:
    """Parse every module of the package."""
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in PACKAGE.rglob("*.py")}


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its docstring."""
    assert node.end_lineno is not None
    docstring = node.body[0] if ast.get_docstring(node) is not None else None
    told = 0 if docstring is None else (docstring.end_lineno or 0) - docstring.lineno + 1
    return node.end_lineno - node.lineno + 1 - told


def test_a_module_of_more_than_300_lines_says_why() -> None:
    long = [
        str(file.relative_to(PACKAGE))
        for file, tree in trees().items()
        if len(file.read_text(encoding="utf-8").splitlines()) > 300
        and "The module is long" not in " ".join((ast.get_docstring(tree) or "").split())
    ]
    assert not long


def test_no_function_has_more_than_80_lines() -> None:
    long = [
        f"{file.relative_to(PACKAGE)}: {node.name} has {lines(node)}"
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines(node) > 80
    ]
    assert not long


def test_no_variable_has_a_name_that_says_nothing() -> None:
    empty = {"one", "found", "made", "data", "result", "helper", "manager", "utils"}
    named = [
        f"{file.relative_to(PACKAGE)}, line {node.lineno}"
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id in empty)
        or (isinstance(node, ast.arg) and node.arg in empty)
    ]
    assert not named


def weigh(file: Path) -> Counter[str]:
    """Count a module's lines by what they are; comments are code."""
    text = file.read_text(encoding="utf-8").splitlines()
    kinds: dict[int, str] = {}
    for node in ast.walk(trees()[file]):
        told = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if told or isinstance(node, ast.Import | ast.ImportFrom):
            kind = "docstrings" if told else "imports"
            kinds |= dict.fromkeys(range(node.lineno, (node.end_lineno or 0) + 1), kind)
    return Counter(
        kinds.get(n, "code") if line.strip() else "blank" for n, line in enumerate(text, 1)
    )


if __name__ == "__main__":
    rooms: defaultdict[str, list[Counter[str]]] = defaultdict(list)
    for file in trees():
        place = file.relative_to(PACKAGE).parent.as_posix()
        rooms["all"].append(weigh(file))
        rooms["top level" if place == "." else place].append(rooms["all"][-1])
    for room, files in sorted(rooms.items(), key=lambda row: -sum(map(Counter.total, row[1]))):
        lines = sum(files, Counter())
        parts = [f"{lines[kind]:,}" for kind in ("code", "docstrings", "imports", "blank")]
        cells = [f"`{room}`", f"{lines.total():,} ({len(files)})", *parts]
        print(f"| {' | '.join(cells)} |")  # noqa: T201
