"""Trials of methods take few passes, and what they leave out is counted."""

from __future__ import annotations

import pytest
import torch

from exporter import compute_maps
from exporter.maps import METHODS, count_forwards, get_methods, lightest, registry
from tests.small import small

SIZE = (24, 32)
REPEATED = [name for name, method in METHODS.items() if lightest(method) is not method]


def rows_seen(monkeypatch: pytest.MonkeyPatch, method: str, module: str, *, few: bool) -> int:
    """Return how many inputs reach a module of the model while a method maps one image."""
    if few:
        [known] = get_methods([method])
        monkeypatch.setitem(registry._REGISTERED, method, lightest(known))
    model, seen = small().eval(), []
    model.get_submodule(module).register_forward_hook(lambda *given: seen.append(len(given[1][0])))
    compute_maps(model, torch.rand(1, 3, *SIZE), maps=[method], layers=["0", "2"])
    return sum(seen)


def test_methods_that_repeat_passes_can_do_with_few() -> None:
    assert set(REPEATED) == {
        "scorecam", "ablationcam", "smoothgrad", "integratedgradients", "occlusion", "rise",
    }  # fmt: skip


@pytest.mark.parametrize("name", REPEATED)
def test_the_forwards_of_a_method_are_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [method] = get_methods([name])
    # What follows the layers of a method that runs only that ends in the same module.
    whole = rows_seen(monkeypatch, name, "6", few=False)
    light = rows_seen(monkeypatch, name, "6", few=True)
    counted = count_forwards(method, (6, 8), SIZE) - count_forwards(lightest(method), (6, 8), SIZE)
    assert whole - light == counted > 10
    assert count_forwards(lightest(method), (6, 8), SIZE) <= 2
    # That one also finds out what follows a layer; one without gradients, what the model ends in.
    assert name == "ablationcam" or light <= 4 + (not method.needs.gradients)


@pytest.mark.parametrize(
    ("asked", "forwards"),
    [
        ("gradcam", 0),
        ("saliency", 1),
        ("finercam", 2),  # at each of two layers
        ("smoothgrad:samples=7", 7),
        ("scorecam:channels=7", 6 + 7),
        ("scorecam", 6 + 8),
        ("occlusion:window=8,stride=8", 3 * 4),
    ],
)
def test_settings_say_how_many_forwards_there_are(asked: str, forwards: int) -> None:
    [method] = get_methods([asked])
    assert count_forwards(method, (6, 8), SIZE) == forwards
