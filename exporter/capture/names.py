"""The grammar of layer names: a module, its call, a part of what it returns; globs and types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from torch import nn

from exporter.containers import step
from exporter.errors import LayerError, choices

QUOTED = r'"(?:[^"\\]|\\.)*"'
"""A part of a name in quotes, as in JSON: it is taken as it is, whatever it holds."""
_PART = rf'(?:{QUOTED}|[^.#\[\]"]+)'
_SUFFIX = rf'(?:#(?P<call>\d+))?(?P<path>(?:\[(?:{QUOTED}|[^\[\]"]+)\])*)'
_NAME = re.compile(rf"(?P<module>{_PART}(?:\.{_PART})*){_SUFFIX}")
_GRAMMAR = re.compile(r'[#\[\]*?:"\x00-\x1f]|^[@\s]|\s$')
_WORDS = ("auto", "all")


@dataclass(frozen=True, slots=True)
class LayerName:
    """A layer's name, read.

    Attributes:
        module: the module's qualified name.
        call: which of its calls, from 1.
        path: which part of what it returns, such as ``[0]`` or ``[key]``; ``""`` for the tensor
            itself, or every one in a container.

    >>> str(parse_name("encoder#1[0]"))
    'encoder[0]'
    >>> parse_name('blocks."a[0]"#2')
    LayerName(module='blocks.a[0]', call=2, path='')
    """

    module: str
    call: int = 1
    path: str = ""

    @property
    def numbered(self) -> str:
        """The module and the number of the call, where it is not the first."""
        module = quoted(self.module)
        return module if self.call == 1 else f"{module}#{self.call}"

    def __str__(self) -> str:
        """Write it as a user would."""
        return self.numbered + self.path


def parse_name(text: str, known: Iterable[str] = ()) -> LayerName:
    """Read ``layer4``, ``relu#2`` (its second call), ``block[0]`` or ``block[key]``.

    Args:
        text: as a user writes it: parts of a name in double quotes are taken as they are.
        known: names of modules; the longest that the text begins with needs no quotes, and a
            wrapper's prefix (``_orig_mod.``, ``module.``) may stand before it.

    Raises:
        LayerError: if the text is no layer's name, or counts calls from 0.
    """
    known = tuple(known)
    for wrapper in ("_orig_mod.", "module."):  # of torch.compile and DataParallel, taken off
        inside = text.removeprefix(wrapper)
        if known and inside != text and not any(name.startswith(wrapper) for name in known):
            text = inside
    module = max((name for name in known if text.startswith(name)), key=len, default="")
    match = re.fullmatch(_SUFFIX, text[len(module) :]) if module else None
    if match is None and (match := _NAME.fullmatch(text)):
        module = unquoted(match["module"])
    if match is None:
        raise LayerError(
            f"{text!r} is not a layer's name; write it as in layer4, relu#2 (its second call) or "
            'layer4[0] (a part of its output), and other signs in quotes, as in "a[0]"#2'
        )
    call = int(match["call"] or 1)
    if call < 1:
        raise LayerError(
            f"the layer {text!r} counts calls from 1; write {module!r} or '{module}#2'"
        )
    keys = re.findall(rf'\[({QUOTED}|[^\[\]"]+)\]', match["path"])
    return LayerName(module, call, "".join(step(unquoted(key)) for key in keys))


def quoted(name: str) -> str:
    """Write a module's name so that it is read as nothing else: parts with signs go into quotes.

    >>> quoted("blocks.a[0].conv")
    'blocks."a[0]".conv'
    """
    if name in _WORDS:
        return json.dumps(name)
    return ".".join(
        json.dumps(part, ensure_ascii=False) if _GRAMMAR.search(part) else part
        for part in name.split(".")
    )


def unquoted(text: str) -> str:
    """Return a module's name as it is, with no quotes around its parts."""

    def plain(match: re.Match[str]) -> str:
        with suppress(ValueError):
            return str(json.loads(match[0]))
        return match[0]

    return re.sub(QUOTED, plain, text)


def find_layer(
    model: nn.Module, text: str, modules: Mapping[str, nn.Module] | None = None
) -> LayerName:
    """Find the layer of a model that a name means; its `named_layers` may be known already.

    Raises:
        LayerError: if no module is called so, or it is another module's second name.
    """
    modules = named_layers(model) if modules is None else modules
    name = parse_name(text, modules)
    if name.module in modules:
        return name
    if first := first_names(model).get(name.module):
        raise LayerError(
            f"the layer {text!r} is the same module as {first!r}; its calls are"
            f" {first!r}, '{first}#2' and so on"
        )
    raise LayerError(f"the model has no layer {text!r}; {choices(name.module, modules)}")


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return a model's modules by qualified name, each once, without the model itself."""
    return {name: module for name, module in model.named_modules() if name}


def first_names(model: nn.Module) -> dict[str, str]:
    """Return, for every name that a module has, its first, which hooks know it by."""
    first = {id(module): name for name, module in model.named_modules()}
    every = model.named_modules(remove_duplicate=False)
    return {name: first[id(module)] for name, module in every if name}


def is_pattern(text: str) -> bool:
    """Say whether a text is a glob or a type rather than one name."""
    plain = re.sub(rf"{QUOTED}|\[[^\[\]]*\]", "", text)
    return text.startswith("@") or "*" in plain or "?" in plain


def expand(text: str, modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """Find the modules that a glob, ``@Type`` or exact name means.

    ``*`` and ``?`` stay within one part of a name, ``**`` crosses the dots: ``features.*`` is the
    children of ``features``, ``features.**`` everything in it. ``@Conv2d`` is every module of a
    class called so, subclasses by that name included. A name that a module has is that module, and
    parts in double quotes are taken as they are.

    Raises:
        LayerError: if nothing is meant by it.
    """
    if text in modules:
        return (text,)
    if text.startswith("@"):
        wanted = text[1:]
        names = tuple(
            name
            for name, module in modules.items()
            if wanted in (base.__name__ for base in type(module).__mro__[:-1])
            and wanted not in ("Module", "object")
        )
        types = dict.fromkeys("@" + type(module).__name__ for module in modules.values())
        if not names:
            raise LayerError(f"the model has no layer of type {wanted!r}; {choices(text, types)}")
        return names
    rule = re.compile(_regex(text), re.DOTALL)
    names = tuple(name for name in modules if rule.fullmatch(name))
    if not names:
        raise LayerError(f"the model has no layer {text!r}; {choices(text, map(quoted, modules))}")
    return names


def _regex(glob: str) -> str:
    parts = re.split(rf"({QUOTED}|\*\*|\*|\?)", glob)
    rules = {"**": ".*", "*": r"[^.]*", "?": r"[^.]"}
    return "".join(rules.get(part, re.escape(unquoted(part))) for part in parts)
