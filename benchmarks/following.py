"""Does a map follow what moves? A textured patch on a flat image, and the centroid of its maps.

One model is shown a flat image and the same image with a textured patch at five places. The class
explained is the one that the patch raises most. At the deepest layer taken, what the patch changed
is the map minus the flat image's; its centroid is weighted by the squares. A trial is a
move of the patch from one place to another, ten of them: the centroid is carried if it goes at
least a third as far in the patch's direction, and no further across. A map follows if it is carried
in nine moves of ten.

The control is the same map of the same activations, each image's gradients shuffled among its
places and channels: carried in fewer than half of the moves, or the trial shows nothing. With
random weights that depends on how loud the patch is beside the flat part, so a few stated stimuli
are tried in order, and at one of them one of HiResCAM and LayerCAM has to show both: the map
follows, and the same map with shuffled gradients does not. These two keep a gradient for each
place. Grad-CAM averages it away, so that shuffled gradients show where the activations are large,
and follow too.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exporter.capture import Captured, capture
from exporter.errors import LayerError
from exporter.explain.layers import View, as_grid
from exporter.maps import channel_maps, get_methods
from exporter.models import LayerChoice, choose_layers, locate_output, rows_of

GOAL = 0.9
"""Share of the moves in which the centroid has to be carried."""
CONTROL = 0.5
"""Share of the moves that the shuffled map has to stay under."""
SHOWN = ("gradcam", "layercam", "hirescam")
"""Gradient maps that have to be finite, and not the same everywhere, at every layer taken."""
FOLLOWING = ("hirescam", "layercam")
"""Gradient maps that keep a gradient for each place: one of them has to follow."""
STIMULI = ((2.0, 1.0), (1.0, 2.0), (2.0, 2.0), (0.0, 1.5), (1.0, 1.0), (0.5, 2.0))
"""(level of the flat image, contrast of the texture), in the order tried."""
_PLACES = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75), (0.5, 0.5))
_SIDE = 0.3
_CELL = 8
_CARRIED = 1 / 3


@dataclass(frozen=True)
class Check:
    """What one model did.

    Attributes:
        choice: the layers taken by default, and why.
        output: path of the tensor explained; ``""`` for the output itself.
        shapes: (height, width) of each layer's maps.
        finite: whether every value of every map is a finite number.
        varied: whether no map is the same everywhere.
        carried: share of the moves in which the centroid was carried.
        shuffled: the same of the control.
        method: the map that these two are of.
        stimulus: (level, contrast) that they are of.
    """

    choice: LayerChoice
    output: str
    shapes: tuple[tuple[int, int], ...]
    finite: bool
    varied: bool
    carried: float
    shuffled: float
    method: str
    stimulus: tuple[float, float]

    @property
    def failure(self) -> str | None:
        """Say what is wrong, or None."""
        layer = self.choice.names[-1]
        if not self.finite:
            return "a map is not finite"
        if not self.varied:
            return "a map is the same everywhere"
        if self.carried < GOAL:
            return f"{layer}: the centroid is carried in {self.carried:.0%} of the moves"
        if self.shuffled >= CONTROL:
            return f"{layer}: with shuffled gradients it is carried too, {self.shuffled:.0%}"
        return None


def textured(
    size: tuple[int, int], stimulus: tuple[float, float] = STIMULI[0], *, seed: int = 0
) -> Tensor:
    """Return the flat image, and one for each place with the patch there, (6, 3, H, W)."""
    (height, width), (level, contrast) = size, stimulus
    generator = torch.Generator().manual_seed(seed)
    rows, columns = round(height * _SIDE), round(width * _SIDE)
    cells = (1, 3, -(-rows // _CELL), -(-columns // _CELL))
    noise = torch.randn(cells, generator=generator) * contrast
    patch = noise.repeat_interleave(_CELL, 2).repeat_interleave(_CELL, 3)[0, :, :rows, :columns]
    images = torch.full((1 + len(_PLACES), 3, height, width), level)
    for image, (y, x) in zip(images[1:], _PLACES, strict=True):
        top, left = round(y * height - rows / 2), round(x * width - columns / 2)
        image[:, top : top + rows, left : left + columns] = patch
    return images


def check(module: nn.Module, *, size: tuple[int, int] = (224, 224), seed: int = 0) -> Check:
    """Choose a model's layers, explain the moving patch and see whether the maps follow.

    Args:
        module: in eval mode, its weights meaningful (see `benchmarks.fixtures.prepared`).
        size: (height, width) of its input.
        seed: of the texture and of the shuffles.

    Raises:
        ExporterError: if no layer can be taken or explained.
    """
    example = textured(size, seed=seed)[1:2]
    choice = choose_layers(module, example, ["auto"])
    captured, path = _explained(module, example, choice.names)
    shown = [_maps(captured, name, View.of(example)) for name in choice.names]
    finite = all(bool(torch.isfinite(maps).all()) for maps in shown)
    varied = all(bool((maps.amax((2, 3)) > maps.amin((2, 3))).all()) for maps in shown)
    best = (0.0, 1.0, "", STIMULI[0])
    for stimulus in STIMULI:
        for method, (carried, shuffled) in _follows(
            module, choice.names[-1], size, stimulus, seed
        ).items():
            if (_shown(carried, shuffled), carried - shuffled) > (
                _shown(*best[:2]),
                best[0] - best[1],
            ):
                best = (carried, shuffled, method, stimulus)
        if _shown(*best[:2]):
            break
    shapes = tuple((maps.shape[-2], maps.shape[-1]) for maps in shown)
    return Check(choice, path, shapes, finite, varied, *best)


def _shown(carried: float, shuffled: float) -> bool:
    return carried >= GOAL and shuffled < CONTROL


def _explained(module: nn.Module, images: Tensor, layers: tuple[str, ...]) -> tuple[Captured, str]:
    """Capture the class that every image but the first, the flat one, raises most."""
    paths: list[str] = []

    def score(output: object) -> Tensor:
        tensor, path = locate_output(output, None)
        paths.append(path)
        rows = rows_of(tensor)
        raised = rows.detach()[-1] if len(rows) == 1 else rows.detach()[1:].mean(0) - rows[0]
        return rows[:, int(raised.argmax())].unsqueeze(1)

    captured = capture(module, images, layers, score)
    for name in layers:
        if name not in captured.gradients:
            raise LayerError(f"{name}: {captured.missing.get(name, 'it has no gradient')}")
    return captured, paths[0]


def _maps(captured: Captured, name: str, view: View) -> Tensor:
    """Return the maps (M, N, H, W) of one layer that are looked at everywhere."""
    activation = as_grid(captured.activations[name], name, view).float()
    gradient = as_grid(captured.gradients[name][0], name, view).float()
    return torch.stack(list(channel_maps(get_methods(SHOWN), activation, gradient, None).values()))


def _follows(
    module: nn.Module, layer: str, size: tuple[int, int], stimulus: tuple[float, float], seed: int
) -> dict[str, tuple[float, float]]:
    """Return by method the share of moves carried, with the gradients and with shuffled ones."""
    images = textured(size, stimulus, seed=seed)
    captured, _ = _explained(module, images, (layer,))
    view = View.of(images)
    activation = as_grid(captured.activations[layer], layer, view).float()
    gradient = as_grid(captured.gradients[layer][0], layer, view).float()
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.stack(
        [
            one.flatten()[torch.randperm(one.numel(), generator=generator)].view(one.shape)
            for one in gradient
        ]
    )
    methods = get_methods(FOLLOWING)
    right = channel_maps(methods, activation, gradient, None)
    wrong = channel_maps(methods, activation, shuffled, None)
    return {name: (carried_share(right[name]), carried_share(wrong[name])) for name in right}


def carried_share(maps: Tensor) -> float:
    """Return the share of moves in which the centroid is carried.

    Args:
        maps: (6, H, W), the flat image's first, then one a place.
    """
    change = (maps[1:] - maps[:1]).double().square()
    total = change.sum((1, 2))
    ys = (torch.arange(maps.shape[1]) + 0.5) / maps.shape[1]
    xs = (torch.arange(maps.shape[2]) + 0.5) / maps.shape[2]
    centroids = torch.stack(
        ((change.sum(2) * ys).sum(1) / total, (change.sum(1) * xs).sum(1) / total), dim=1
    )
    moves = list(itertools.combinations(range(len(_PLACES)), 2))
    count = 0
    for start, end in moves:
        patch = (torch.tensor(_PLACES[end]) - torch.tensor(_PLACES[start])).double()
        moved = centroids[end] - centroids[start]
        along = float(moved @ patch / (patch @ patch))
        across = float((moved - along * patch).norm() / patch.norm())
        count += along >= _CARRIED and across <= along
    return count / len(moves)
