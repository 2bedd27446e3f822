"""Methods that run the model themselves: what their context promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from exporter.capture import capture, follows_alone, guest
from exporter.explain import Explainer
from exporter.explain.batches import stored_pixels
from exporter.explain.passes import Runner
from exporter.maps import Method, Needs, PassContext, Passes
from exporter.maps.needs import store_settings
from exporter.records import MethodRecord
from exporter.targets import Target

TARGETS = torch.tensor([[1, 0], [4, 2], [2, 3]])


def made(compute: Callable[[PassContext], Tensor], **record: Any) -> Method:
    """A method that is not registered."""
    settings = record.pop("settings", {})
    said = MethodRecord("mine", "t", "s", "f", "p", "u", "c", "c", relu=False, **record)
    needs = Needs(activations=not said.pixel, gradients=not said.pixel, passes=Passes(backwards=1))
    declared = store_settings("sum") if said.pixel else {}
    values = {name: entry.default for name, entry in declared.items()} | settings
    return Method("mine", said, needs, "pass", compute, declared=declared, settings=values)


def scorer(output: Tensor, images: slice) -> Tensor:
    here = TARGETS[images]
    return output.gather(1, here.repeat(len(output) // len(here), 1))


def run(model: nn.Module, images: Tensor, layers: list[str], method: Method) -> Any:
    captured = capture(model, images, layers, lambda output: scorer(output, slice(None)))
    with guest(model):
        return Runner(model, [method])(
            images, captured, layers, scorer, targets=TARGETS, count=2, reader=lambda output: output
        )


class Around(nn.Module):
    """Something leads around the stage: the input's mean, to the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3))
        return self.head(torch.cat((self.relu(self.stage(x)).mean((2, 3)), mean), 1))


class Counting(nn.Module):
    """The number of images is read before the stage and used after it."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Conv2d(3, 4, 3, stride=4)
        self.head = nn.Linear(4 * 3 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stage(x).reshape(x.shape[0], -1))


@pytest.fixture
def batch() -> Tensor:
    return torch.randn(3, 3, 12, 16, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("name", ["stage1", "Around", "Counting", "vit", "swin"])
def test_run_from_is_the_model_with_that_activation(
    name: str, model: nn.Module, batch: Tensor
) -> None:
    if name in ("vit", "swin"):
        batch = torch.nn.functional.interpolate(batch, size=(64, 64))
        if name == "vit":
            model = torchvision.models.VisionTransformer(64, 16, 2, 2, 8, 16, num_classes=5)
            nn.init.normal_(model.heads.head.weight)
        else:
            model = torchvision.models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4])
        layer = {"vit": "encoder.layers.encoder_layer_0", "swin": "features.1"}[name]
    else:
        layer = "stage1" if name == "stage1" else "stage"
        model = {"stage1": lambda: model, "Around": Around, "Counting": Counting}[name]()
    model = model.double()
    with guest(model):
        assert follows_alone(model, layer, batch) == (name not in ("Around", "Counting"))
    seen: list[PassContext] = []

    def compute(context: PassContext) -> Tensor:
        seen.append(context)
        grid = context.activations
        assert grid is not None
        # Three variants of two images: as it is, reordered, and without a place.
        part = context.part(1, 3)
        assert part.activations is not None
        without = part.activations.clone()
        without[:, :, 0, 0] = 0
        variants = torch.cat((part.activations, part.activations.flip(1), without))
        with torch.no_grad():
            scores = part.score(part.run_from(variants)).view(3, 2, 2)
        plain = part.values(part.inputs)
        torch.testing.assert_close(scores[0], plain, rtol=1e-10, atol=1e-12)
        assert (
            scores[1] - scores[0]
        ).abs().min() > 1e-8  # layer normalisation takes most of it back

        def change(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            if output.ndim == 3:
                changed[:, 1] = 0  # after the class token
            elif name == "swin":
                changed[:, 0, 0] = 0
            else:
                changed[:, :, 0, 0] = 0
            return changed

        handle = dict(context.module.named_modules())[layer].register_forward_hook(change)
        expected = part.values(part.inputs)
        handle.remove()
        torch.testing.assert_close(scores[2], expected, rtol=1e-10, atol=1e-12)
        return grid.new_zeros(3, 2, *grid.shape[2:])

    found = run(model, batch, [layer], made(compute))
    (context,) = seen
    assert context.activations is not None
    assert found.layers[layer]["mine"][1].shape == (3, *context.activations.shape[-2:])
    assert context.gradients is not None
    assert context.gradients.shape == (2, *context.activations.shape)


def test_a_layer_method_takes_its_place_among_the_others(model: nn.Module, images: Tensor) -> None:
    from exporter.maps import METHODS

    def compute(context: PassContext) -> Tensor:
        assert context.gradients is not None
        assert context.activations is not None
        return (context.gradients * context.activations).sum(2).transpose(0, 1)

    explainer = Explainer(
        model,
        [METHODS["gradcam"], made(compute), METHODS["saliency"], METHODS["hirescam"]],
        ["stage1", "stage2"],
        target=Target("top", k=2),
    )
    assert list(explainer.passes[1:]) == [
        "one forward and 2 backwards to the input for mine",
        "one forward and 2 backwards to the input for saliency",
    ]
    found = explainer(images, torch.full((3,), -1)).to_host()
    order = ["gradcam", "mine", "hirescam"] * 2
    by = {
        (method, here.layer, target): here.levels[m]
        for here in found.maps
        for m, (method, target) in enumerate(here.names)
    }
    assert [method for method, _, _ in by] == [*order, *order, "saliency", "saliency"]
    for target in range(2):
        mine, known = by["mine", "stage1", target], by["hirescam", "stage1", target]
        assert abs(mine.astype(int) - known.astype(int)).max() <= 1
    assert by["saliency", "", 0].shape == (3, 12, 16)


@pytest.mark.parametrize(
    ("size", "reduce", "shape"),
    [(6, "sum", (4, 6)), (0, "max-abs", (8, 12)), (40, "sum-abs", (8, 12))],
)
def test_what_the_store_keeps_of_a_pixel_map(
    size: int, reduce: str, shape: tuple[int, int]
) -> None:
    values = torch.randn(2, 1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    method = made(lambda _: values, pixel=True, settings={"size": size, "reduce": reduce})
    (group,) = stored_pixels([method], {"mine": values})
    (found,) = group["mine"]
    assert found.shape == (2, *shape)
    one = {"sum": values.sum(2), "max-abs": values.abs().amax(2), "sum-abs": values.abs().sum(2)}
    if size == 6:
        expected = one[reduce][:, 0].reshape(2, 4, 2, 6, 2).mean((2, 4))
        torch.testing.assert_close(found, expected)
    else:
        torch.testing.assert_close(found, one[reduce][:, 0])


def test_the_generator_is_the_same_for_every_batch(model: nn.Module, images: Tensor) -> None:
    drawn = []

    def compute(context: PassContext) -> Tensor:
        drawn.append(torch.randn(4, generator=context.generator))
        return torch.zeros(3, 2, 1, 12, 16)

    for _ in range(2):
        before = torch.get_rng_state()
        run(model, images, ["stage1"], made(compute, pixel=True))
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(drawn[0], drawn[1])


def test_rows_in_the_model_together_are_bounded(
    model: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    model.stem.register_forward_pre_hook(lambda _module, given: sizes.append(len(given[0])))

    def compute(context: PassContext) -> Tensor:
        sizes.clear()
        context.values(context.inputs.repeat(30, 1, 1, 1))
        return torch.zeros(3, 2, 1, 12, 16)

    run(model, images, ["stage1"], made(compute, pixel=True))
    assert sizes == [30, 30, 30]
