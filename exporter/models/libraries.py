"""Models by name: torchvision's, timm's and the bundled one."""

from __future__ import annotations

import importlib
import inspect
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from torch import nn

from exporter.errors import ModelError, choices, one_line
from exporter.models import demo
from exporter.models.classes import imagenet_classes
from exporter.models.preprocessing import from_timm, from_torchvision
from exporter.models.source import DEFAULT, NONE, Source


def from_torchvision_name(name: str, weights: str) -> Source:
    """Return torchvision's model of a name, for classification, segmentation or detection.

    Of weights ``none``, transforms and classes are those of the default ones. Other names are those
    such as ``IMAGENET1K_V1``, with their enum's name before it or not.
    """
    from torchvision import models

    names = models.list_models()
    if name.lower() not in names:
        raise ModelError(f"torchvision has no model {name!r}; {choices(name.lower(), names)}")
    name = name.lower()
    enum: Any = models.get_model_weights(name)
    available: dict[str, Any] = {member.name: member for member in enum}
    chosen: Any = getattr(enum, DEFAULT, None)
    if weights not in (DEFAULT, NONE):
        chosen = _known(name, weights, available, weights.rpartition(".")[2])
    if chosen is None and weights == DEFAULT:
        raise ModelError(f"torchvision has no weights of {name}; use --weights none")

    def build(bare: bool, classes: int | None) -> nn.Module:
        options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
            options["weights_backbone"] = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            if bare:
                module: nn.Module = models.get_model(name, weights=None, **options)
                return module
            try:
                return models.get_model(name, weights=chosen, progress=False)  # type: ignore[no-any-return]
            except Exception as error:
                raise ModelError(_not_had(name, chosen.name, error)) from None

    if chosen is None:
        return Source(name, NONE, build, resizable=True)
    # Read now, so that a model that takes no photograph is refused before it is built.
    steps = from_torchvision(chosen.transforms(), weights=str(chosen), model=name)
    categories = tuple(chosen.meta.get("categories", ()))
    return Source(name, chosen.name, build, lambda _: steps, lambda _: categories, resizable=True)


def from_timm_name(name: str, weights: str) -> Source:
    """Return timm's model of a name, such as ``convnext_tiny`` or ``convnext_tiny.in12k``."""
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError:
        raise ModelError(
            f"the model 'timm:{name}' needs timm; install it with: pip install timm"
        ) from None
    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        raise ModelError(f"timm has no model {plain!r}; {choices(plain, timm.list_models())}")
    pretrained = (full.partition(".") for full in timm.list_pretrained(f"{plain}*"))
    tags = {tag: tag for model, _, tag in pretrained if model == plain}
    tag = tag if weights in (DEFAULT, NONE) else weights
    full = f"{plain}.{_known(plain, tag, tags)}" if tag else plain

    def build(bare: bool, classes: int | None) -> nn.Module:
        if bare:
            options = {} if classes is None else {"num_classes": classes}
            module: nn.Module = timm.create_model(full, pretrained=False, **options)
            return module
        try:
            with _hub_cache_only_where_offline():
                return timm.create_model(full, pretrained=True)  # type: ignore[no-any-return]
        except Exception as error:
            raise ModelError(_not_had(f"timm:{full}", tag or DEFAULT, error)) from None

    def classes(module: nn.Module) -> tuple[str, ...]:
        timm_data: Any = importlib.import_module("timm.data")
        subset = timm_data.infer_imagenet_subset(module)
        if subset in (None, "imagenet-1k"):
            return imagenet_classes() if subset else ()
        info = timm_data.ImageNetInfo(subset)
        return tuple(
            info.index_to_description(i, detailed=False) for i in range(info.num_classes())
        )

    named = tag or next(iter(tags), DEFAULT)
    return Source(plain, named, build, from_timm, classes, resizable=True)


def from_demo(weights: str) -> Source:
    """Return the bundled EfficientNet-Lite0 (see ``exporter.models.demo``)."""
    _known("the model 'demo'", weights, {DEFAULT: DEFAULT, NONE: NONE})
    return Source(
        "efficientnet_lite0",
        demo.WEIGHTS,
        lambda bare, _: demo.efficientnet_lite0(pretrained=not bare),
        from_timm,
        lambda _: imagenet_classes(),
    )


def _known(model: str, asked: str, available: dict[str, Any], name: str | None = None) -> Any:
    """Return the weights of a name, or say which names there are."""
    weights = available.get(asked if name is None else name)
    if weights is None:
        valid = choices(asked, dict.fromkeys([DEFAULT, NONE, *available]))
        raise ModelError(f"{model} has no weights {asked!r}; {valid}")
    return weights


def _not_had(model: str, weights: str, error: Exception) -> str:
    return (
        f"the weights {weights} of {model} could not be loaded ({one_line(error)}); "
        "use --weights none or --checkpoint FILE"
    )


@contextmanager
def _hub_cache_only_where_offline() -> Iterator[None]:
    """Spare the user a minute of retries: where the hub has no address, only its cache is read."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    was = constants.HF_HUB_OFFLINE
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was
