from __future__ import annotations

from exporter.explain import describe_passes
from exporter.maps import get_methods

GRADIENT = get_methods(["gradcam", "layercam"])
FLAT = get_methods(["eigencam"])


def test_all_gradient_methods_share_one_forward_and_one_backward() -> None:
    (shared,) = describe_passes([*GRADIENT, *FLAT], ["layer1", "layer2"])
    assert shared == (
        "one forward and one backward for gradcam, layercam, eigencam at layer1, layer2"
    )


def test_targets_are_backwards_over_the_same_forward() -> None:
    (shared,) = describe_passes(GRADIENT, ["layer4"], targets=3)
    assert shared == "one forward and 3 backwards for gradcam, layercam at layer4"


def test_activations_alone_take_no_backward() -> None:
    (shared,) = describe_passes(FLAT, ["layer4"], targets=3)
    assert shared == "one forward and no backward for eigencam at layer4"


def test_no_method_is_still_one_forward() -> None:
    (shared,) = describe_passes([], [])
    assert shared == "one forward and no backward for predictions and activations"


def test_methods_that_run_the_model_follow_those_that_share_their_passes_together() -> None:
    guided = get_methods(["guidedbackprop", "deconvnet", "guidedgradcam", "saliency"])
    shared, *own = describe_passes([GRADIENT[0], *guided[:2], guided[3]], ["layer4"], targets=2)
    assert shared == "one forward and 2 backwards for gradcam at layer4"
    assert [sentence.split(" for ")[1] for sentence in own] == [
        "guidedbackprop",
        "deconvnet",
        "saliency",
    ]
    assert own[0] == (
        "one forward and 2 backwards to the input through guided ReLUs for guidedbackprop"
    )
    _, together = describe_passes([guided[0], guided[2]], ["layer4"], targets=2)
    assert together.endswith(" for guidedbackprop, guidedgradcam")
    alone, _ = describe_passes([guided[0]], ["layer4"])
    assert alone == "one forward and no backward for predictions and activations"


def test_methods_that_merely_run_alike_are_passes_of_their_own() -> None:
    _, *own = describe_passes(get_methods(["saliency", "inputxgradient", "fullgrad"]), [])
    assert [sentence.split(" for ")[1] for sentence in own] == [
        "saliency, inputxgradient",
        "fullgrad",
    ]
