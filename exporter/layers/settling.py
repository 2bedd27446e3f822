"""How every output of a trial lies: by types, then by a moved patch, then by layers alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from exporter.errors import LayerError
from exporter.layers.askew import Steps, has_quarters
from exporter.layers.calls import Call
from exporter.layers.evidence import shown_by_moves, shown_by_types
from exporter.layers.layout import Layout


@dataclass(frozen=True, slots=True)
class Seen:
    """An output that may lie in a plane: its layout as first read, and means by how it is read."""

    call: Call
    part: str
    layout: Layout
    means: Mapping[str, Tensor]


def settled(
    module: nn.Module,
    example: Tensor,
    seen: Mapping[str, Seen],
    calls: Sequence[Call],
    steps: Steps,
) -> tuple[dict[str, Layout], str]:
    """Return the layout of every plane, with what shows it where something does, or why not.

    What types show is measured, too, where the model may turn its planes on the way or compute
    frequencies of them.
    """
    layouts = {name: each.layout for name, each in seen.items()}

    def open_ones() -> dict[str, Layout]:
        return {name: layout for name, layout in layouts.items() if not layout.shown}

    height, width = example.shape[-2:]
    layouts |= shown_by_types(open_ones(), calls, (height, width))
    left = {name: layout for name, layout in open_ones().items() if layout.area > 1}
    known = {name: layout for name, layout in layouts.items() if layout.shown}
    held = {name for name, layout in known.items() if any(steps) and has_quarters(layout)}
    if (left or held) and not example.is_meta:
        try:
            moved = shown_by_moves(
                module, example, left, known, held, frequencies=steps.frequencies
            )
        except LayerError as error:
            return layouts, str(error)
        types = {name: f"{type(seen[name].call.module)} {seen[name].part}" for name in left}
        layouts |= moved
        if not calls:  # a layer may see the image, and the same layer a mirrored one
            return layouts, ""
        left = {name: layout for name, layout in left.items() if name not in moved}
        layouts |= _shown_by_siblings(
            left, {name: moved[name] for name in moved if name in types}, types
        )
        _inherit(layouts, seen)
    return layouts, ""


def _inherit(layouts: dict[str, Layout], seen: Mapping[str, Seen]) -> None:
    """Settle the layout of what ends with a layer of the same shape whose layout is settled."""
    names = list(seen)
    for number, (name, each) in enumerate(seen.items()):
        if layouts[name].shown or layouts[name].area < 2:
            continue
        inside = (
            other
            for other in reversed(names[:number])
            if each.call.start <= seen[other].call.position < each.call.position
        )
        last = next((o for o in inside if layouts[o].shape == layouts[name].shape), None)
        if last is not None and layouts[last].shown:
            root = layouts[last].evidence.rpartition(", whose ")[2].removeprefix("its ")
            why = f"as {last} inside it, whose {root}"
            layouts[name] = replace(layouts[last], evidence=why)


def _shown_by_siblings(
    layouts: Mapping[str, Layout], measured: Mapping[str, Layout], types: Mapping[str, str]
) -> dict[str, Layout]:
    """Settle the layouts of layers of the same type and shape as one that follows.

    Deep blocks mix all places, so that the patch need not stand out there.
    """
    alike: dict[tuple[str, tuple[int, ...]], tuple[str, Layout]] = {}
    for name, layout in measured.items():
        alike.setdefault((types[name], layout.shape), (name, layout))
    settled = {}
    for name, layout in layouts.items():
        if (like := alike.get((types[name], layout.shape))) is not None:
            why = like[1].evidence.removeprefix("its ")
            settled[name] = replace(like[1], evidence=f"as {like[0]}, whose {why}")
    return settled
