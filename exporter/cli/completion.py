"""What the shell completes: names of maps, models and layers, and files.

Importing the libraries takes seconds, so names are read from their sources where they are declared.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class, shell_complete

from exporter.doors import MAPS, plugins

VARIABLE = "_EXPORTER_COMPLETE"
"""Where the shell's script says that it wants completions."""

_LIBRARIES = ("torchvision", "timm")

_MAP = re.compile(r'^@method\(\s*"([^"]+)"', re.MULTILINE)
_MODEL = re.compile(
    r'^@register_model(?:\((?:name="(\w+)")?\))?$[\s\S]*?^def (\w+)\(', re.MULTILINE
)
# Bash would take what stands before a colon for a word of its own.
_BASH = 'COMP_WORDBREAKS="${COMP_WORDBREAKS//:/}"\n'


@click.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion_command(shell: str) -> None:
    """Print the script that teaches a shell to complete this command.

    For bash, put 'eval "$(exporter completion bash)"' into ~/.bashrc; for zsh, the same with zsh
    into ~/.zshrc; for fish, write it to ~/.config/fish/completions/exporter.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    script = kind(click.Command("exporter"), {}, "exporter", VARIABLE).source()
    click.echo((_BASH if shell == "bash" else "") + script)


def answer_shell(group: click.Group) -> int | None:
    """Print what the shell asks for, and return the exit code; None where it asks for nothing."""
    asked = os.environ.get(VARIABLE)
    if not asked:
        return None
    with suppress(Exception):  # there is no place to say why there is nothing to offer
        return shell_complete(group, {}, "exporter", VARIABLE, asked)
    return 1


def _complete_map(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _offer([*sorted(_declared("exporter.maps", _MAP)), *plugins(MAPS)], incomplete)


def complete_model(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the models of a library once it is named; before that the libraries, and files."""
    library, colon = incomplete.partition(":")[:2]
    if colon:
        names = sorted(_declared(library, _MODEL)) if library in _LIBRARIES else []
        return _offer((f"{library}:{name}" for name in names), incomplete)
    known = ["demo", *(f"{name}:" for name in _LIBRARIES if find_spec(name))]
    return [*_offer(known, incomplete), CompletionItem(incomplete, type="file")]


def _complete_layer(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the layers of a library's model; code of the user's own is not run."""
    library, name = (context.params.get("model") or "").partition(":")[::2]
    names = ["auto"]
    if library in _LIBRARIES and name:
        import torch

        from exporter.models.resolve import find_source

        with torch.device("meta"):
            model = find_source(f"{library}:{name}", "none").build(True, None)
        names += [layer for layer, _ in model.named_modules() if layer]
    return _offer(names, incomplete)


def _complete_file(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


COMPLETERS: Mapping[str, Callable[..., list[CompletionItem]]] = {
    "maps": _complete_map,
    "model": complete_model,
    **dict.fromkeys(("layers", "activations", "kernels"), _complete_layer),
    **dict.fromkeys(("images", "out", "checkpoint", "classes"), _complete_file),
}
"""By setting, what offers values of its flag."""


def _offer(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _declared(package: str, pattern: re.Pattern[str]) -> set[str]:
    """Return the names that the sources of a package declare."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return set()
    names: set[str] = set()
    for file in Path(spec.origin).parent.rglob("*.py"):
        declared = pattern.finditer(file.read_text("utf-8", "replace"))
        names.update(next(filter(None, part.groups())) for part in declared)
    return names
