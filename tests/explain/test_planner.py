from __future__ import annotations

from dataclasses import dataclass

from exporter.explain import plan_passes


@dataclass(frozen=True)
class Needs:
    gradients: bool
    passes: str = ""


@dataclass(frozen=True)
class Method:
    name: str
    needs: Needs
    reads_layers: bool = True

    def passes(self, targets: int) -> str:
        return self.needs.passes.format(targets=targets)


STEEP = [Method("gradcam", Needs(True)), Method("layercam", Needs(True))]
FLAT = [Method("eigencam", Needs(False))]


def test_all_gradient_methods_share_one_forward_and_one_backward() -> None:
    (one,) = plan_passes([*STEEP, *FLAT], ["layer1", "layer2"])
    assert (one.forwards, one.backwards) == (1, 1)
    assert one.methods == ("gradcam", "layercam", "eigencam")
    assert one.sentence == (
        "one forward and one backward for gradcam, layercam, eigencam at layer1, layer2"
    )


def test_targets_are_backwards_over_the_same_forward() -> None:
    (one,) = plan_passes(STEEP, ["layer4"], targets=3)
    assert (one.forwards, one.backwards) == (1, 3)
    assert one.sentence == "one forward and 3 backwards for gradcam, layercam at layer4"


def test_activations_alone_take_no_backward() -> None:
    (one,) = plan_passes(FLAT, ["layer4"], targets=3)
    assert one.backwards == 0
    assert one.sentence == "one forward and no backward for eigencam at layer4"


def test_no_method_is_still_one_forward() -> None:
    (one,) = plan_passes([], [])
    assert one.sentence == "one forward and no backward for predictions and activations"


def test_methods_that_run_the_model_follow_those_of_the_same_passes_together() -> None:
    guided = Needs(False, "one forward and {targets} backwards through guided ReLUs")
    plain = [Method(name, guided, reads_layers=False) for name in ("one", "two")]
    shared, own = plan_passes([STEEP[0], *plain], ["layer4"], targets=2)
    assert shared.sentence == "one forward and 2 backwards for gradcam at layer4"
    assert own.sentence == "one forward and 2 backwards through guided ReLUs for one, two"
    assert own.methods == ("one", "two")
    alone, _ = plan_passes(plain, ["layer4"])
    assert alone.sentence == "one forward and no backward for predictions and activations"
