"""One model, one set of methods and layers: explain batch after batch, never waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture import (
    Pass,
    capture,
    channel_statistics,
    plan_passes,
    strongest_channels,
)
from exporter.errors import TargetError
from exporter.explain.batches import Contents, DeviceBatch, Recorded, block_of, send
from exporter.explain.layers import View, as_grid, classifiers_at, maps_at_layers
from exporter.explain.passes import Runner, stored_pixels
from exporter.maps import Method
from exporter.models import Reshape, Target, locate_output, target_indices


class Explainer:
    """Built once a run (or once a replica of the model), called once a batch.

    Attributes:
        passes: what a batch runs, for people.
    """

    def __init__(
        self,
        module: nn.Module,
        methods: Sequence[Method],
        layers: Sequence[str],
        *,
        target: Target,
        recorded: Sequence[str] = (),
        channels: int = 8,
        output: str | None = None,
        top_k: int = 5,
        reshape: Reshape | None = None,
        seed: int = 0,
    ) -> None:
        """Take what every batch has in common.

        Args:
            module: the model; it is left as it is found, after every batch.
            methods: map methods.
            layers: layers to explain.
            target: what is explained.
            recorded: layers whose channels are reduced and whose strongest channels are kept.
            channels: strongest channels kept a recorded layer and image; 0 keeps statistics only.
            output: path of the explained tensor inside the model's output (see `locate_output`).
            top_k: predictions kept an image.
            reshape: from a layer's output to (N, C, H, W), where its shape does not tell.
            seed: of methods that draw random numbers.
        """
        self._module = module
        self._methods = tuple(methods)
        self._layers = tuple(layers) if any(method.reads_layers for method in methods) else ()
        self._runner = Runner(module, methods, seed=seed)
        self._recorded = tuple(recorded)
        self._channels = channels
        self._target = target
        self._output = output
        self._top_k = top_k
        self._reshape = reshape
        self._classifiers: dict[str, Tensor] | None = None
        targets = target.k if target.kind == "top" else 1
        self.passes: tuple[Pass, ...] = plan_passes(self._methods, self._layers, targets=targets)

    def prepare(self, inputs: Tensor) -> None:
        """Find the classifier that CAM reads, by trying the model on one image; done once.

        The first call does it if nobody has.

        Args:
            inputs: (N, C, H, W), of which the first image is taken.

        Raises:
            MapError: if a method needs a classifier and no layer has one behind it.
        """
        if self._classifiers is None:
            self._classifiers = classifiers_at(
                self._methods, self._module, self._layers, inputs[:1], output=self._output
            )

    def __call__(self, inputs: Tensor, labels: Tensor) -> DeviceBatch:
        """Explain one batch.

        Args:
            inputs: (N, C, H, W), floating point, on the model's device.
            labels: int64 (N,) on the same device, -1 where unknown.

        Returns:
            The batch, still on the device; nothing has waited for it.

        Raises:
            ExporterError: if a layer, method or target does not fit the model.
        """
        self.prepare(inputs)
        one = self.passes[0]
        captured = capture(
            self._module,
            inputs,
            tuple(dict.fromkeys((*self._layers, *self._recorded))),
            lambda output: self._scores(output, labels)[1],
            gradients=self._layers if one.backwards else False,
        )
        with torch.inference_mode(False), torch.no_grad():
            logits = self._logits(captured.output)
            targets, _ = self._scores(captured.output, labels)
        passes = self._runner(
            inputs,
            captured,
            self._layers,
            lambda output, images: _repeated(self._logits(output), targets[images]),
            targets=targets,
            count=targets.shape[1],
        )
        with torch.inference_mode(False), torch.no_grad():
            maps, missing = maps_at_layers(
                self._methods,
                captured,
                self._layers,
                view=View.of(inputs, self._reshape),
                classifiers=self._classifiers or {},
                targets=targets,
                count=targets.shape[1],
                passes=passes,
            )
            pixels = stored_pixels(self._methods, passes.pixels)
            recorded = tuple(
                self._record(name, activation, View.of(inputs, self._reshape))
                for name, activation in captured.activations.items()
                if not set(self._recorded).isdisjoint(captured.asked[name])
            )
            contents = Contents(
                *_predictions(logits, labels, self._top_k),
                targets=targets.to(torch.int32),
                nan_output=~torch.isfinite(logits).all(1),
                blocks=tuple(
                    block_of(layer, made)
                    for layer, made in (*maps.items(), *(("", found) for found in pixels))
                ),
                recorded=recorded,
            )
            for name in self._recorded:
                if name in captured.missing and name not in captured.activations:
                    missing.setdefault(name, captured.missing[name])
            return send(contents, missing)

    def _logits(self, output: Any) -> Tensor:
        return rows_of(locate_output(output, self._output)[0])

    def _scores(self, output: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the targets' indices and scores, (N, T) each."""
        logits = self._logits(output)
        targets = target_indices(self._target, logits.detach(), labels)
        return targets, logits.gather(1, targets)

    def _record(self, name: str, activation: Tensor, view: View) -> Recorded:
        laid = as_grid(activation, name, view)
        statistics = channel_statistics(laid)
        if self._channels == 0:
            return Recorded(name, statistics, None)
        return Recorded(name, statistics, strongest_channels(laid, statistics.mean, self._channels))


def _repeated(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the targets' scores (k·N, T) of k variants of N images."""
    return logits.gather(1, targets.repeat(len(logits) // len(targets), 1))


def rows_of(output: Tensor) -> Tensor:
    """Return the explained output as rows (N, K); one value an image is K = 1.

    Raises:
        TargetError: if an image's output is not a row of values.
    """
    if output.ndim == 1:
        return output.unsqueeze(1)
    if output.ndim != 2:
        raise TargetError(
            f"the model's output has the shape {tuple(output.shape)}, where a row of values an"
            " image, (N, K), is explained; name another output"
        )
    return output


def _predictions(logits: Tensor, labels: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the top-k indices (N, k), their scores (N, k) and the loss (N,)."""
    values = logits.to(torch.float32)
    classes = values.shape[1]
    top = values.topk(min(top_k, classes), dim=1)
    unknown = torch.full_like(values[:, 0], torch.nan)
    if classes == 1:
        return top.indices.to(torch.int32), top.values, unknown
    log_shares = values.log_softmax(1)
    known = (labels >= 0) & (labels < classes)
    right = log_shares.gather(1, labels.clamp(0, classes - 1).unsqueeze(1)).squeeze(1)
    scores = log_shares.gather(1, top.indices).exp()
    return top.indices.to(torch.int32), scores, torch.where(known, -right, unknown)
