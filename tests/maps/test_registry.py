"""Names, aliases, and what every record must say."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Literal

import pytest
import torch
from torch import Tensor

from exporter.errors import MapError
from exporter.maps import METHODS, Terms, get_methods, method


@pytest.mark.slow
def test_methods_are_listed_in_the_same_order_whichever_module_comes_first() -> None:
    code = "import exporter.maps.eigen; from exporter.maps import METHODS; print(*METHODS)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert said.stdout.split() == list(METHODS)
    assert list(METHODS)[:3] == ["cam", "gradcam", "gradcam++"]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("gradcam", "gradcam"),
        ("Grad-CAM", "gradcam"),
        ("gradcampp", "gradcam++"),
        ("gradcamplusplus", "gradcam++"),
        ("GradCAM++", "gradcam++"),
        ("grad_cam_plus_plus", "gradcam++"),
        ("XGrad-CAM", "xgradcam"),
        ("LayerCAM", "layercam"),
        ("HiResCAM", "hirescam"),
        ("gradcam_elementwise", "gradcam-elementwise"),
        ("Eigen-CAM", "eigencam"),
        ("eigen-grad-cam", "eigengradcam"),
        ("CAM", "cam"),
    ],
)
def test_usual_spellings_are_understood(asked: str, name: str) -> None:
    assert [found.name for found in get_methods([asked])] == [name]


def test_methods_come_once_each_in_the_order_asked_for() -> None:
    found = get_methods(["eigencam", "gradcam", "Eigen-CAM"])
    assert [one.name for one in found] == ["eigencam", "gradcam"]
    assert get_methods("gradcam") == (METHODS["gradcam"],)
    (smooth,) = get_methods(["gradcam:smooth=flips", "Grad-CAM:smooth=flips"])
    assert smooth.settings["smooth"] == "flips"
    for asked in (["gradcam", "gradcam:smooth=flips"], ["gradcam:smooth=flips", "gradcam"]):
        with pytest.raises(MapError, match="'gradcam' is asked for with different settings; a run"):
            get_methods(asked)


@pytest.mark.parametrize("wrong", ["gradcan", "", "gradcam-fast", "図"])
def test_an_unknown_name_is_one_sentence_with_choices(wrong: str) -> None:
    with pytest.raises(MapError) as caught:
        get_methods(["gradcam", wrong])
    said = str(caught.value)
    assert repr(wrong) in said
    assert "gradcam" in said
    assert "\n" not in said


@pytest.mark.usefixtures("registry_kept")
@pytest.mark.parametrize(("name", "aliases"), [("Grad-CAM", ()), ("new", ("gradcam_pp",))])
def test_a_taken_name_is_refused(name: str, aliases: tuple[str, ...]) -> None:
    before = list(METHODS)
    with pytest.raises(MapError, match="already means 'gradcam"):

        @method(name, shows="s", formula="f", kind="map", aliases=aliases)
        def compute(terms: Terms) -> Tensor:
            return terms.A

    assert list(METHODS) == before


@pytest.mark.usefixtures("registry_kept")
def test_a_function_that_is_defined_again_replaces_itself() -> None:
    """As when a notebook's cell is run twice."""
    for value in (1.0, 2.0):

        @method("again", shows="s", formula="f", kind="map")
        def again(terms: Terms, factor: float = value) -> Tensor:
            return factor * terms.A.sum(1)

    assert METHODS["again"].settings == {"factor": 2.0}


@pytest.mark.usefixtures("registry_kept")
def test_settings_are_the_functions_parameters_typed_as_their_defaults() -> None:
    @method("typed", shows="s", formula="f", kind="map")
    def typed(
        terms: Terms, times: int = 2, factor: float = 1, sign: Literal["+", "-"] = "+"
    ) -> Tensor:
        return times * factor * terms.A.sum(1) * (1 if sign == "+" else -1)

    (plain,), (changed,) = get_methods("typed"), get_methods("typed:factor=0.50,sign=-")
    assert plain.settings == {"times": 2, "factor": 1.0, "sign": "+"}
    assert changed.record.settings == {"times": "2", "factor": "0.5", "sign": "-"}
    terms = Terms(torch.ones(1, 3, 2, 2))
    assert plain(terms).unique().tolist() == [6]
    assert changed(terms).unique().tolist() == [-3]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("gradcam", ""),
        ("finercam", "one forward after the layer and 2 backwards (classes=3, strength=1.0)"),
        ("shapleycam", "one forward after the layer and 4 backwards"),
        ("scorecam", "one forward per channel of masked images (channels=0)"),
        (
            "ablationcam:channels=3",
            "one forward per channel after the layer of the layer without that channel"
            " (channels=3)",
        ),
        ("legrad", "one forward without fused attention and one backward per block and target"),
        ("guidedgradcam", "one forward and 2 backwards to the input through guided ReLUs"),
        (
            "integratedgradients:steps=5",
            "5 forwards of images between the mean colour and the image and, for each, 2 backwards"
            " to the input (steps=5)",
        ),
        (
            "occlusion:window=20",
            "one forward per window of the image with that window covered"
            " (window=20.0, stride=0.125)",
        ),
    ],
)
def test_what_a_method_runs_is_said(asked: str, said: str) -> None:
    (wanted,) = get_methods(asked)
    assert wanted.sentence(targets=2) == said


def test_methods_of_forward_passes_alone() -> None:
    alone = {name for name, entry in METHODS.items() if entry.only_forward}
    assert alone == {"eigencam", "scorecam", "ablationcam", "occlusion", "rise"}


def test_a_term_that_was_not_captured_is_asked_for_in_one_sentence() -> None:
    with pytest.raises(MapError, match=r"declare it .* needs=Needs\(gradients=True\)"):
        METHODS["gradcam"](Terms(torch.ones(1, 2, 3, 3)))


def test_the_registry_is_read_only() -> None:
    with pytest.raises(TypeError):
        METHODS["mine"] = METHODS["cam"]  # type: ignore[index]


@pytest.mark.parametrize("name", METHODS)
def test_every_record_says_everything(name: str) -> None:
    found = METHODS[name]
    record = found.record
    assert record.name == name
    assert record.url.startswith(("https://", "http://"))
    assert re.search(r"\b(19|20)\d\d\b", record.paper), "a paper has a year"
    assert record.formula.startswith("M")
    assert record.relu == record.formula.endswith("then ReLU")
    for text in (record.title, record.shows, record.cost, record.caveats):
        assert text
        assert "  " not in text
    assert record.shows.endswith(".")
    assert record.caveats.endswith(".")
    assert found.compute.__doc__ is not None
    assert "Source:" in found.compute.__doc__
    assert "epsilon" in found.compute.__doc__


def test_only_methods_of_the_definition_end_in_a_relu() -> None:
    for name in ("gradcam", "gradcam++", "xgradcam", "layercam", "finercam", "ablationcam"):
        assert METHODS[name].record.relu
    for name in ("cam", "hirescam", "gradcam-elementwise", "eigencam", "saliency", "refinecam"):
        assert not METHODS[name].record.relu
