"""What an engine is handed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from exporter.explain import Explainer
from exporter.images import ImageSet
from exporter.layers import Kernels, Reshape
from exporter.maximise import Wanted
from exporter.records import Plan


@dataclass(frozen=True)
class Job:
    """Everything a shard is computed from.

    Attributes:
        plan: the run's plan.
        image_set: where the images are read from.
        module: the model, on ``device``, in eval, its parameters frozen for the whole run.
        explainer: builds an explainer around the model or around a replica of it.
        kernels: the kernels to draw.
        device: where the model is.
        batch_size: images a forward.
        channels_last: whether inputs are laid out channels last.
        workers: decoding threads; 0 decodes where the model runs.
        masks: whether the target needs each image's given mask.
        dtype: type of the model's numbers, which its inputs take.
        faithfulness: whether deletion, insertion and ROAD are measured.
        maximised: channels that pictures are made for, after the pass.
        output: path of the explained tensor inside the model's output, or None for the guess.
        reshape: the user's function from a layer's output to (N, C, H, W), or None.
    """

    plan: Plan
    image_set: ImageSet
    module: nn.Module
    explainer: Callable[[nn.Module], Explainer]
    kernels: tuple[Kernels, ...]
    device: torch.device
    batch_size: int
    channels_last: bool
    workers: int
    masks: bool = False
    dtype: torch.dtype = torch.float32
    faithfulness: bool = False
    maximised: tuple[Wanted, ...] = ()
    output: str | None = None
    reshape: Reshape | None = None
