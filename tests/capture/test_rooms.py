"""Only one room registers hooks."""

from __future__ import annotations

import ast
from pathlib import Path

import exporter

PACKAGE = Path(exporter.__file__).parent
MODES = {"TorchFunctionMode", "TorchDispatchMode", "saved_tensors_hooks"}


def _hooks(file: Path) -> set[str]:
    """Return what in a file registers hooks with torch or puts itself between its calls."""
    names = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Attribute, ast.Name))
    }
    return {
        name for name in names if name in MODES or (name.startswith("register_") and "hook" in name)
    }


def test_hooks_are_registered_in_capture_alone() -> None:
    found = {
        file.relative_to(PACKAGE): names
        for file in sorted(PACKAGE.rglob("*.py"))
        if (names := _hooks(file))
    }
    assert {file.parts[0] for file in found} == {"capture"}
    # Forward hooks pass through one function, which removes them.
    forward = [file.name for file, names in found.items() if "register_forward_hook" in names]
    assert forward == ["hooks.py"]
