"""How large the package's parts may be."""

from __future__ import annotations

import ast
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
