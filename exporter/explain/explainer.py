"""One model, one set of methods and layers: explain batch after batch, never waiting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from exporter.capture import capture, channel_statistics, strongest_channels
from exporter.explain.batches import Contents, DeviceBatch, Recorded, block_of, send
from exporter.explain.layers import View, as_grid, classifiers_at, maps_at_layers
from exporter.explain.passes import Runner, stored_pixels
from exporter.explain.planner import Pass, plan_passes
from exporter.layers import Reshape
from exporter.maps import Method
from exporter.targets import Scored, Scorer, Target, is_detections, locate_output, rows_of, watching


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
        target: Target | Scorer,
        recorded: Sequence[str] = (),
        channels: int = 8,
        output: str | None = None,
        top_k: int = 5,
        reshape: Reshape | None = None,
        seed: int = 0,
        fuse: str | None = None,
        classifiers: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Take what every batch has in common.

        Args:
            module: the model; it is left as it is found, after every batch.
            methods: map methods.
            layers: layers to explain.
            target: what is explained; a scorer where it needs more than the output (a reference
                image, a function).
            recorded: layers whose channels are reduced and whose strongest channels are kept.
            channels: strongest channels kept a recorded layer and image; 0 keeps statistics only.
            output: path of the explained tensor inside the model's output (see `locate_output`).
            top_k: predictions kept an image.
            reshape: from a layer's output to (N, C, H, W), where its shape does not tell.
            seed: of methods that draw random numbers.
            fuse: ``mean``, ``max`` or ``product`` for a map ``fused`` of all layers besides theirs.
            classifiers: by layer, what `prepare` of another explainer of the run found.
        """
        self._module = module
        self._methods = tuple(methods)
        self._layers = tuple(layers) if any(method.reads_layers for method in methods) else ()
        self._runner = Runner(module, methods, seed=seed, reshape=reshape)
        self._fuse = fuse or ""
        self._recorded = tuple(recorded)
        self._channels = channels
        self._scorer = Scorer(target, output) if isinstance(target, Target) else target
        self._top_k = top_k
        self._reshape = reshape
        self._classifiers = classifiers
        self.passes: tuple[Pass, ...] = plan_passes(
            self._methods, self._layers, targets=self._scorer.target.k
        )

    def prepare(self, inputs: Tensor) -> Mapping[str, Tensor]:
        """Find the classifier that CAM reads, by trying the model on one image; done once.

        The first call does it if nobody has.

        Args:
            inputs: (N, C, H, W), of which the first image is taken.

        Returns:
            By layer, the classifier's weights (K, C); empty where no method needs them.

        Raises:
            MapError: if a method needs a classifier and no layer has one behind it.
        """
        if self._classifiers is None:
            self._classifiers = classifiers_at(
                self._methods, self._module, self._layers, inputs[:1], scorer=self._scorer
            )
        return self._classifiers

    def __call__(self, inputs: Tensor, labels: Tensor, masks: Tensor | None = None) -> DeviceBatch:
        """Explain one batch.

        Args:
            inputs: (N, C, H, W), floating point, on the model's device.
            labels: int64 (N,) on the same device, -1 where unknown.
            masks: given masks, uint8 (N, h, w) there: 1 inside, 0 outside, 255 where none is given.

        Returns:
            The batch, still on the device; nothing has waited for it (a detector waits for its
            boxes by itself).

        Raises:
            ExporterError: if a layer, method or target does not fit the model.
        """
        classifiers = self.prepare(inputs)
        one = self.passes[0]
        with watching(self._module):
            captured = capture(
                self._module,
                inputs,
                tuple(dict.fromkeys((*self._layers, *self._recorded))),
                lambda output: self._scorer(output, labels, masks).scores,
                gradients=self._layers if one.backwards else False,
            )
        with torch.inference_mode(False), torch.no_grad():
            scored = self._scorer(captured.output, labels, masks)
            targets = scored.targets
        passes = self._runner(
            inputs,
            captured,
            self._layers,
            lambda output, images: self._scorer.again(output, scored, images, masks),
            targets=targets,
            count=targets.shape[1],
            reader=lambda output: rows_of(locate_output(output, self._scorer.output)[0]),
        )
        with torch.inference_mode(False), torch.no_grad():
            maps, missing = maps_at_layers(
                self._methods,
                captured,
                self._layers,
                view=View.of(inputs, self._reshape),
                classifiers=classifiers,
                targets=targets,
                count=targets.shape[1],
                passes=passes,
                fusion=self._fuse,
            )
            pixels = stored_pixels(self._methods, passes.pixels)
            recorded = tuple(
                self._record(name, activation, View.of(inputs, self._reshape))
                for name, activation in captured.activations.items()
                if not set(self._recorded).isdisjoint(captured.asked[name])
            )
            contents = Contents(
                *_predictions(scored, labels, self._top_k),
                targets=targets.to(torch.int32),
                against=scored.against.to(torch.int32),
                nan_output=~scored.reading.finite,
                named=scored.reading.named,
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

    def probability(self, inputs: Tensor, index: int) -> Tensor | None:
        """Return a class's probability, float32 (N,): its softmax, of a multi-label output sigmoid.

        Args:
            inputs: (N, C, H, W), on the model's device.
            index: the class.

        Returns:
            None where the output is not a row of several classes an image.
        """
        with torch.inference_mode(False), torch.no_grad(), watching(self._module):
            output = self._module(inputs)
            if is_detections(output):
                return None
            values = locate_output(output, self._scorer.output)[0]
            if values.ndim != 2 or values.shape[1] < 2:
                return None
            several = self._scorer.target.reading == "multilabel"
            shares = values.float().sigmoid() if several else values.float().softmax(1)
            return shares[:, index]

    def _record(self, name: str, activation: Tensor, view: View) -> Recorded:
        laid = as_grid(activation, name, view)
        statistics = channel_statistics(laid)
        if self._channels == 0:
            return Recorded(name, statistics, None)
        return Recorded(name, statistics, strongest_channels(laid, statistics.mean, self._channels))


def _predictions(scored: Scored, labels: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the top-k indices (N, k), their scores (N, k) and the loss (N,)."""
    indices, scores, loss = scored.reading.predict(labels, top_k)
    return indices.to(torch.int32), scores.to(torch.float32), loss.to(torch.float32)
