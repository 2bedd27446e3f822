"""Does a map follow what moves? A textured patch on a flat image, and the centroid of its maps.

One model is shown a flat image and the same image with a textured patch at five places, six
textures in turn. The class explained is the one that the patch raises most. What the patch changed
is the map minus the median of the six maps, at every place; its squares, as shares of their sum,
are averaged over the textures, and their centroid is where the map says the patch is. A trial is a
move of the patch from one place to another, ten of them. The centroid is carried if it goes the
same way (less than 45 degrees off) and at least a tenth as far: random weights spread a patch over
the whole receptive field, so it seldom goes all the way. Where the deepest layer taken does not
follow (with random weights a last stage that attends everywhere mixes all places), the one before
it is tried, and so on; the entry says which layer it was.

The control is the same map of the same activations, each image's gradients shuffled among its
places and channels. It shows something only where the patch is not louder than what surrounds it,
since whatever it is multiplied with, a loud place stays loud. So the texture has no mean of its
own, and its contrast is halved until the activations' energy at the patch is at most a quarter
above that elsewhere, and then until one of the controls is not carried. Nothing else is fitted to
the model, and nothing to its true gradients. Patch and places are whole cells of 32 pixels, so that
strided layers answer alike wherever it lies.

A model's maps follow where one of HiResCAM and LayerCAM is carried in at least nine moves of ten,
and with shuffled gradients in fewer than half. These two keep a gradient for each place. Grad-CAM
averages it away, so that shuffled gradients show where the activations change, and follow too.

Where neither the maps nor what the patch changes in the activations go with it, at any layer taken,
the network itself does not follow: such a draw of random weights decides nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.patch import LOUDEST, QUIETEST, Places, middles, textured
from exporter.capture import Captured, capture
from exporter.errors import LayerError
from exporter.layers import LayerChoice, choose_layers, run_trial
from exporter.layers.planes import Planes
from exporter.maps import channel_maps, get_methods
from exporter.targets import locate_output, rows_of

GOAL = 0.9
"""Share of the moves in which the centroid has to be carried."""
CONTROL = 0.5
"""Share of the moves that the shuffled map has to stay under."""
SHOWN = ("gradcam", "layercam", "hirescam")
"""Gradient maps that have to be finite, and not the same everywhere, at every layer taken."""
FOLLOWING = ("hirescam", "layercam")
"""Gradient maps that keep a gradient for each place: one of them has to follow."""
TEXTURES = 6
BALANCED = 1.25
"""Most energy of the activations at the patch, beside that elsewhere."""
_FAR = 0.1

Scores = Callable[[Any], Tensor]
"""From a model's output to scores (N, K), with their graph."""


@dataclass(frozen=True)
class Answer:
    """How the maps of one layer answer the moving patch.

    Attributes:
        layer: its name.
        contrast: of the texture.
        carried: share of the moves in which the centroid was carried, by method.
        shuffled: the same of the control.
        moved: the same of what the patch changes in the activations.
    """

    layer: str
    contrast: float
    carried: dict[str, float]
    shuffled: dict[str, float]
    moved: float

    @property
    def follows(self) -> bool:
        """Whether one method is carried and its control is not."""
        return any(
            self.carried[name] >= GOAL and self.shuffled[name] < CONTROL for name in FOLLOWING
        )


@dataclass(frozen=True)
class Check:
    """What one model did.

    Attributes:
        choice: the layers taken by default, and why.
        output: path of the tensor explained; ``""`` for the output itself.
        shapes: (height, width) of each layer's maps.
        finite: whether every value of every map is a finite number.
        varied: whether no map is the same everywhere.
        answer: of the deepest layer that follows; of the deepest where none does.
        decided: whether a map follows, or the network does, so that a map has to.
    """

    choice: LayerChoice
    output: str
    shapes: tuple[tuple[int, int], ...]
    finite: bool
    varied: bool
    answer: Answer
    decided: bool

    @property
    def failure(self) -> str | None:
        """Say what is wrong, or None."""
        if not self.finite:
            return "a map is not finite"
        if not self.varied:
            return "a map is the same everywhere"
        if self.answer.follows:
            return None
        told = ", ".join(
            f"{name} {self.answer.carried[name]:.0%} (shuffled {self.answer.shuffled[name]:.0%})"
            for name in FOLLOWING
        )
        return f"{self.answer.layer}: share of the moves in which the centroid is carried: {told}"

    def entry(self) -> dict[str, Any]:
        """Return it as JSON's types, with ``why`` of a failure."""
        return {
            "layers": list(self.choice.names),
            "reason": self.choice.reason,
            "output": self.output,
            "maps": [list(shape) for shape in self.shapes],
            "finite": self.finite,
            "varied": self.varied,
            "at": self.answer.layer,
            "contrast": self.answer.contrast,
            "carried": self.answer.carried,
            "shuffled": self.answer.shuffled,
            "moved": self.answer.moved,
            "decided": self.decided,
            "why": self.failure,
        }


def check(
    module: nn.Module,
    *,
    size: tuple[int, int] = (224, 224),
    scores: Scores | None = None,
    seed: int = 0,
) -> Check:
    """Choose a model's layers, explain the moving patch and see whether the maps follow.

    Args:
        module: in eval mode, its weights meaningful (see `benchmarks.fixtures.prepared`).
        size: (height, width) of its input, at least 96 each, so that the places differ.
        scores: of the classes; None for a classifier's logits.
        seed: of the textures and of the shuffles.

    Raises:
        ExporterError: if no layer can be taken or explained.
    """
    looking = _Looking(module, Planes(module), size, scores or logits_of, seed)
    example = textured(size, seed=seed)[1:2]
    choice = choose_layers(run_trial(module, example), ["auto"])
    captured = looking.captured(example, choice.names)
    shown = [
        torch.stack(list(channel_maps(get_methods(SHOWN), *grids, None).values()))
        for grids in (_grids(looking.planes, captured, name, example) for name in choice.names)
    ]
    # From the deepest on: its answer stands where none follows.
    answers = []
    for name in reversed(choice.names):
        answers.append(looking.answer(name))
        if answers[-1].follows:
            break
    answer = answers[-1] if answers[-1].follows else answers[0]
    return Check(
        choice=choice,
        output=locate_output(captured.output, None)[1] if scores is None else "",
        shapes=tuple((maps.shape[-2], maps.shape[-1]) for maps in shown),
        finite=all(bool(torch.isfinite(maps).all()) for maps in shown),
        varied=all(bool((maps.amax((2, 3)) > maps.amin((2, 3))).all()) for maps in shown),
        answer=answer,
        decided=answer.follows or any(each.moved >= GOAL for each in answers),
    )


def logits_of(output: Any) -> Tensor:
    """Return a classifier's logits (N, K)."""
    return rows_of(locate_output(output, None)[0])


@dataclass(frozen=True)
class _Looking:
    """One model, and what it is shown."""

    module: nn.Module
    planes: Planes
    size: tuple[int, int]
    scores: Scores
    seed: int

    def captured(self, images: Tensor, layers: tuple[str, ...]) -> Captured:
        """Capture the class that every image but the first, the flat one, raises most.

        A single image is explained for its largest score.
        """

        def score(output: Any) -> Tensor:
            rows = self.scores(output)
            known = rows.detach()
            raised = known[-1] if len(known) == 1 else known[1:].mean(0) - known[0]
            return rows[:, int(raised.argmax())].unsqueeze(1)

        captured = capture(self.module, images, layers, score)
        for name in layers:
            if name not in captured.gradients:
                raise LayerError(f"{name}: {captured.missing.get(name, 'it has no gradient')}")
        return captured

    def balanced_contrast(self, layer: str) -> float:
        """Return the largest contrast, of halvings, at which the patch is no louder."""
        contrast = LOUDEST
        while contrast > QUIETEST:
            images = textured(self.size, contrast, seed=self.seed)
            activation, _ = _grids(self.planes, self.captured(images, (layer,)), layer, images)
            energy = activation[1:].double().square().mean(1)
            inside = Places(*self.size).inside(energy.shape[1], energy.shape[2])
            here = (energy * inside).sum((1, 2)) / inside.sum((1, 2))
            elsewhere = (energy * ~inside).sum((1, 2)) / (~inside).sum((1, 2))
            if float((here / elsewhere).log().mean().exp()) <= BALANCED:
                break
            contrast /= 2
        return contrast

    def answer(self, layer: str) -> Answer:
        """Move the patch under one layer, at the largest contrast whose control can fail."""
        contrast = self.balanced_contrast(layer)
        answer = self.follow(layer, contrast)
        while min(answer.shuffled.values()) >= CONTROL and contrast > QUIETEST:
            contrast /= 2
            answer = self.follow(layer, contrast)
        return answer

    def follow(self, layer: str, contrast: float) -> Answer:
        """Return the share of moves carried by method, with the gradients and with shuffled."""
        generator = torch.Generator().manual_seed(self.seed)
        methods = get_methods(FOLLOWING)
        right: dict[str, list[Tensor]] = {name: [] for name in FOLLOWING}
        wrong: dict[str, list[Tensor]] = {name: [] for name in FOLLOWING}
        moved: list[Tensor] = []
        for number in range(TEXTURES):
            images = textured(self.size, contrast, seed=self.seed + number)
            activation, gradient = _grids(
                self.planes, self.captured(images, (layer,)), layer, images
            )
            moved.append((activation - activation.median(0).values).norm(dim=1))
            mixed = torch.stack(
                [
                    one.flatten()[torch.randperm(one.numel(), generator=generator)].view(one.shape)
                    for one in gradient
                ]
            )
            for kept, given in ((right, gradient), (wrong, mixed)):
                for name, maps in channel_maps(methods, activation, given, None).items():
                    kept[name].append(maps)
        places = Places(*self.size)
        return Answer(
            layer,
            contrast,
            {name: carried_share(torch.stack(maps), places) for name, maps in right.items()},
            {name: carried_share(torch.stack(maps), places) for name, maps in wrong.items()},
            carried_share(torch.stack(moved), places),
        )


def _grids(planes: Planes, captured: Captured, name: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return one layer's activations and gradients, (N, C, H, W) each."""
    activation = planes.read(name, captured.activations[name], images).float()
    return activation, planes.read(name, captured.gradients[name][0], images).float()


def carried_share(maps: Tensor, places: Places) -> float:
    """Return the share of moves in which the centroid is carried.

    Args:
        maps: (textures, 6, H, W), the flat image's first, then one a place.
        places: where the patch lies.
    """
    change = (maps - maps.median(1, keepdim=True).values)[:, 1:].double().square()
    shares = (change / change.sum((2, 3), keepdim=True)).mean(0)
    ys, xs = middles(shares.shape[1]), middles(shares.shape[2])
    centroids = torch.stack(((shares.sum(2) * ys).sum(1), (shares.sum(1) * xs).sum(1)), dim=1)
    moves = list(itertools.combinations(range(len(centroids)), 2))
    count = 0
    for start, end in moves:
        patch = places.centres[end] - places.centres[start]
        moved = centroids[end] - centroids[start]
        along = float(moved @ patch / (patch @ patch))
        across = float((moved - along * patch).norm() / patch.norm())
        count += along >= _FAR and across <= along
    return count / len(moves)
