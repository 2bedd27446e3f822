"""How faithful maps are to the model, and how much they change when it is randomised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from exporter.records.columns import LAYER, METHOD, Column, Float32, Int32

_DELETION = "area under the probability as the most salient pixels go, 0 to 1, lower is better"
_INSERTION = "area under the probability as they are put back, 0 to 1, higher is better"
_ROAD = "score of remove and debias, -0.5 to 0.5, higher is better"


@dataclass(frozen=True, slots=True)
class OtherMetric:
    """What a plug-in's metric came to, for one image or as the mean over the measured images."""

    name: Annotated[str, Column("name of the metric")]
    about: Annotated[str, Column("what it is, its range and which values are better")]
    value: Annotated[float | None, Column("value, or mean over the images that have one")]


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """How faithful one map is to the model; None where there is nothing to measure."""

    id: Annotated[str, Column("the image")]
    method: Annotated[str, METHOD]
    layer: Annotated[str, Column("the deepest explained layer")]
    deletion: Annotated[float | None, Column(_DELETION)]
    insertion: Annotated[float | None, Column(_INSERTION)]
    road: Annotated[float | None, Column(_ROAD)]
    others: Annotated[tuple[OtherMetric, ...], Column("metrics of plug-ins")] = ()


@dataclass(frozen=True, slots=True)
class MethodFaithfulness:
    """How faithful one method's maps are, as means over the measured images."""

    method: Annotated[str, METHOD]
    layer: Annotated[str, Column("the deepest explained layer")]
    images: Annotated[int, Column("images measured")]
    deletion: Annotated[float | None, Column(f"mean {_DELETION}")]
    insertion: Annotated[float | None, Column(f"mean {_INSERTION}")]
    road: Annotated[float | None, Column(f"mean {_ROAD}")]
    others: Annotated[tuple[OtherMetric, ...], Column("metrics of plug-ins")] = ()


_STEP = Column("how many stages of the model are randomised, from the top")
_RANDOMISED = Column("the stage that is randomised last")
_SPEARMAN = "rank correlation with the trained model's map, -1 to 1"
_SSIM = "structural similarity to the trained model's map, -1 to 1"


@dataclass(frozen=True, slots=True)
class SanityStep:
    """How like the trained model's map that of a randomised one is; None where it says nothing."""

    id: Annotated[str, Column("the image")]
    method: Annotated[str, METHOD]
    layer: Annotated[str, LAYER]
    step: Annotated[Int32, _STEP]
    randomised: Annotated[str, _RANDOMISED]
    spearman: Annotated[Float32 | None, Column(_SPEARMAN)]
    ssim: Annotated[Float32 | None, Column(_SSIM)]


@dataclass(frozen=True, slots=True)
class MethodSanity:
    """The same of one method, as means over the images that have a value."""

    method: Annotated[str, METHOD]
    layer: Annotated[str, LAYER]
    step: Annotated[Int32, _STEP]
    randomised: Annotated[str, _RANDOMISED]
    images: Annotated[int, Column("images measured")]
    spearman: Annotated[float | None, Column(f"mean {_SPEARMAN}")]
    ssim: Annotated[float | None, Column(f"mean {_SSIM}")]
