"""Names, aliases, and what every record must say."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from torch import Tensor

from exporter.errors import MapError
from exporter.maps import METHODS, Terms, get_methods, method

NAMES = [
    "cam",
    "gradcam",
    "gradcam++",
    "xgradcam",
    "layercam",
    "hirescam",
    "gradcam-elementwise",
    "eigencam",
    "eigengradcam",
    "refinecam",
    "finercam",
    "shapleycam",
    "scorecam",
    "ablationcam",
    "rollout",
    "legrad",
    "chefer",
    "saliency",
    "inputxgradient",
    "guidedbackprop",
    "deconvnet",
    "guidedgradcam",
    "smoothgrad",
    "integratedgradients",
    "fullgrad",
    "occlusion",
]


def test_methods_are_listed_in_this_order() -> None:
    assert list(METHODS) == NAMES
    # Whichever module of the package is imported first.
    code = "import exporter.maps.eigen; from exporter.maps import METHODS; print(*METHODS)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout.split() == NAMES


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
    ends = {name for name, found in METHODS.items() if found.record.relu}
    shared = {"gradcam", "gradcam++", "xgradcam", "layercam"}
    assert ends == shared | {"finercam", "shapleycam", "scorecam", "ablationcam"}
