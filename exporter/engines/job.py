"""What an engine is handed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from exporter.engines.recipe import Recipe
from exporter.explain import BatchWork, Explainer
from exporter.layers import Kernels, Reshape
from exporter.maximise import Group, Wanted, make_pictures
from exporter.records import ImageEntry, MaximisedPicture


@dataclass(frozen=True, kw_only=True)
class Job(BatchWork):
    """A recipe bound in this process: everything a shard is computed from.

    It stays in its process. ``recipe`` and ``plan`` are what another one needs to bind the same.

    Attributes:
        recipe: how the model and the images were built.
        module: the model, on ``device``, in eval, its parameters frozen for the whole run.
        explainer: gives the explainer of the model or of a replica of it, the same each time.
        kernels: the kernels to draw.
        workers: decoding threads; 0 decodes where the model runs.
        maximised: channels that pictures are made for, after the pass.
        reshape: the user's function from a layer's output to (N, C, H, W), or None.
    """

    recipe: Recipe
    module: nn.Module
    explainer: Callable[[nn.Module], Explainer]
    kernels: tuple[Kernels, ...]
    workers: int
    maximised: tuple[Wanted, ...] = ()
    reshape: Reshape | None = None

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        return self.recipe.config.batch_size

    @property
    def output(self) -> str | None:
        """Path of the explained tensor inside the model's output, or None for the guess."""
        return self.recipe.config.output

    def make_pictures(self, group: Group) -> list[MaximisedPicture]:
        """Make the pictures of one group of maximised channels."""
        return make_pictures(
            self.module,
            self.plan.model,
            group,
            together=self.batch_size,
            output=self.output,
            reshape=self.reshape,
        )


@dataclass(frozen=True)
class Batch:
    """Images of one shard that go through the model together.

    Attributes:
        shard: number of the shard.
        last: whether the shard ends with this batch.
        entries: the images.
    """

    shard: int
    last: bool
    entries: tuple[ImageEntry, ...]
