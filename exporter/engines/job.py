"""What an engine is handed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from exporter.engines.recipe import Recipe
from exporter.explain import Explainer
from exporter.images import ImageSet
from exporter.layers import Kernels, Reshape
from exporter.maximise import Wanted
from exporter.records import Plan


@dataclass(frozen=True)
class Job:
    """A recipe bound in this process: everything a shard is computed from.

    It stays in its process. ``recipe`` and ``plan`` are what another one needs to bind the same.

    Attributes:
        recipe: how the model and the images were built.
        plan: the run's plan.
        image_set: where the images are read from.
        module: the model, on ``device``, in eval, its parameters frozen for the whole run.
        explainer: builds an explainer around the model or around a replica of it.
        kernels: the kernels to draw.
        device: where the model is.
        channels_last: whether inputs are laid out channels last.
        workers: decoding threads; 0 decodes where the model runs.
        masks: whether the target needs each image's given mask.
        dtype: type of the model's numbers, which its inputs take.
        maximised: channels that pictures are made for, after the pass.
        reshape: the user's function from a layer's output to (N, C, H, W), or None.
    """

    recipe: Recipe
    plan: Plan
    image_set: ImageSet
    module: nn.Module
    explainer: Callable[[nn.Module], Explainer]
    kernels: tuple[Kernels, ...]
    device: torch.device
    channels_last: bool
    workers: int
    masks: bool = False
    dtype: torch.dtype = torch.float32
    maximised: tuple[Wanted, ...] = ()
    reshape: Reshape | None = None

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        return self.recipe.config.batch_size

    @property
    def faithfulness(self) -> bool:
        """Whether deletion, insertion and ROAD are measured."""
        return self.recipe.config.faithfulness

    @property
    def output(self) -> str | None:
        """Path of the explained tensor inside the model's output, or None for the guess."""
        return self.recipe.config.output
