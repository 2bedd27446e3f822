"""One model, one set of methods and layers: explain batch after batch, never waiting."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from exporter.capture import Captured, CompiledCapture, capture, guest
from exporter.errors import TargetError
from exporter.explain.batches import (
    BatchMaps,
    DeviceBatch,
    Maps,
    Outcome,
    pack,
    quantised,
    stored_pixels,
    stored_regions,
)
from exporter.explain.described import describe_passes
from exporter.explain.layers import maps_at_layers
from exporter.explain.passes import Runner
from exporter.explain.recording import Recording
from exporter.explain.smoothing import averaged, mirrored_target
from exporter.layers import Encoder, Layout, Reshape
from exporter.layers.planes import Planes
from exporter.maps import Method
from exporter.targets import Scored, Scorer, Target, locate_output, rows_of, watching


class Explainer:
    """Built once per run (or once per replica of the model), called once per batch.

    Every batch leaves the model as it found it. Hold the model as a guest for the whole run
    (`exporter.capture.guest`), and that costs next to nothing per batch.

    Attributes:
        passes: what a batch runs, a sentence per pass.
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
        top_k: int = 5,
        layouts: Mapping[str, Layout] | None = None,
        reshape: Reshape | None = None,
        seed: int = 0,
        fuse: str | None = None,
        classifiers: Mapping[str, Tensor] | None = None,
        settle: Callable[[Any, Scorer], Scorer] | None = None,
        stage: str = "",
        encoder: Encoder | None = None,
    ) -> None:
        """Bind what every batch has in common.

        Args:
            module: the model.
            methods: map methods.
            layers: layers to explain.
            target: what is explained; a scorer where it needs more than the output (a reference
                image, a function).
            recorded: layers whose channels are reduced and whose strongest channels are kept.
            channels: strongest channels kept per recorded layer and image; 0 keeps statistics only.
            top_k: predictions kept per image.
            layouts: how layers lie in the plane; that of another one is read off its first batch.
            reshape: from a layer's output to (N, C, H, W), where its shape does not tell.
            seed: of methods that draw random numbers.
            fuse: ``mean``, ``max`` or ``product`` for a map ``fused`` of all layers besides theirs.
            classifiers: by layer, the linear layer (K, C) behind it, for methods that need one.
            settle: from the first batch's output and the scorer to that of all, where it is open.
            stage: a layer all of whose channels are carried; none where empty.
            encoder: from a layer to features, which are recorded as channels.
        """
        self._module = module
        self._capture: Callable[..., Captured] = capture
        self._methods = tuple(methods)
        self._layers = tuple(layers) if any(method.reads_layers for method in methods) else ()
        self._planes = Planes(module, layouts, reshape)
        self._runner = Runner(module, methods, planes=self._planes, seed=seed)
        self._fuse = fuse or ""
        self._recording = Recording(self._planes, tuple(recorded), channels, stage, encoder)
        self._scorer = Scorer(target) if isinstance(target, Target) else target
        self._settle = settle
        self._top_k = top_k
        self._classifiers = dict(classifiers or {})
        self._outputs: int | None = None
        self._gradients = any(method.needs.gradients for method in methods)
        self.passes: tuple[str, ...] = describe_passes(
            self._methods, self._layers, targets=self._scorer.target.k
        )
        self._smoothed = tuple(method for method in methods if method.smoothed)
        self._mirrored = self._of_mirrored(seed) if self._smoothed else None

    def _of_mirrored(self, seed: int) -> Explainer:
        """Return what explains the mirrored images, by the methods that are smoothed."""
        other = copy.copy(self)
        other._methods = self._smoothed
        other._runner = Runner(self._module, self._smoothed, planes=self._planes, seed=seed)
        other._recording, other._settle = Recording(self._planes), None
        other._gradients = any(method.needs.gradients for method in self._smoothed)
        other._smoothed, other._mirrored = (), None
        return other

    @property
    def notes(self) -> tuple[str, ...]:
        """Which layers are read by their shape alone, a sentence each."""
        return self._planes.notes

    @property
    def compiling_given_up(self) -> bool:
        """Whether memory ran out in the compiled pass, so that it runs without being compiled."""
        return isinstance(self._capture, CompiledCapture) and self._capture.given_up

    def compiled(self, images: int) -> Explainer:
        """Return the same explainer with its shared pass compiled for batches of so many images."""
        other = copy.copy(self)
        other._capture = CompiledCapture(images)
        if other._mirrored is not None:
            other._mirrored = other._mirrored.compiled(images)
        return other

    def __call__(self, inputs: Tensor, labels: Tensor, masks: Tensor | None = None) -> DeviceBatch:
        """Explain one batch, and quantise what is stored of it.

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
        explained = self.explain(inputs, labels, masks)
        scored, captured = explained.scored, explained.captured
        with torch.inference_mode(False), torch.no_grad():
            indices, scores, loss = scored.reading.predict(labels, self._top_k)
            unrecorded = {
                name: captured.missing[name]
                for name in self._recording.layers
                if name in captured.missing
                and name not in captured.activations
                and name not in explained.missing
            }
            boxes = scored.reading.boxes
            recorded, stage = self._recording(captured, inputs)
            outcome = Outcome(
                top_index=indices.to(torch.int32),
                top_score=scores.to(torch.float32),
                loss=loss.to(torch.float32),
                targets=scored.targets.to(torch.int32),
                against=scored.against.to(torch.int32),
                nan_output=~scored.reading.finite,
                named=scored.reading.named,
                maps=self.quantised(explained),
                recorded=recorded,
                missing=dict(explained.missing) | unrecorded,
                boxes=None if boxes is None else boxes[:, : self._top_k],
                regions=stored_regions(scored),
                stage=stage,
            )
            return DeviceBatch(*pack(outcome))

    def quantised(self, explained: BatchMaps) -> tuple[Maps[Tensor], ...]:
        """Return maps as they are stored, layer by layer, those at the input last."""
        pixels = (("", maps) for maps in stored_pixels(self._methods, explained.pixels))
        return tuple(
            quantised(layer, maps, explained.floors.get(layer))
            for layer, maps in (*explained.maps.items(), *pixels)
        )

    def explain(
        self,
        inputs: Tensor,
        labels: Tensor,
        masks: Tensor | None = None,
        *,
        first: Scored | None = None,
    ) -> BatchMaps:
        """Compute one batch's raw maps: one forward, one backward per target, and its own passes.

        The targets of ``first`` are explained again, where these images were scored before.

        Raises:
            ExporterError: if a layer, method or target does not fit the model.
        """
        inputs = inputs.clone() if inputs.is_inference() else inputs.detach()
        scored: list[Scored] = []

        def score(output: Any) -> Tensor:
            if self._settle is not None:
                self._scorer, self._settle = self._settle(output, self._scorer), None
            if first is None:
                scored.append(self._scorer(output, labels, masks))
            else:
                again = self._scorer.again(output, first, slice(None), masks)
                scored.append(first._replace(scores=again))
            return scored[0].scores

        with guest(self._module), watching(self._module):
            captured = self._capture(
                self._module,
                inputs,
                tuple(dict.fromkeys((*self._layers, *self._recording.read))),
                score,
                gradients=self._layers if self._gradients else False,
            )
            with torch.no_grad():
                if not scored:  # without gradients, or with none that reaches a layer
                    score(captured.output)
                target = scored[0]
                self._refuse_other_outputs(target.reading.outputs)
            passes = self._runner(
                inputs,
                captured,
                self._layers,
                lambda output, images: self._scorer.again(output, target, images, masks),
                targets=target.targets if target.reading.named == "class" else None,
                count=target.targets.shape[1],
                reader=lambda output: rows_of(locate_output(output, self._scorer.output)[0]),
            )
            with torch.no_grad():
                maps, floors, missing = maps_at_layers(
                    self._methods,
                    captured,
                    self._layers,
                    inputs=inputs,
                    planes=self._planes,
                    classifiers=self._classifiers,
                    targets=target.targets,
                    passes=passes,
                    fusion=self._fuse,
                )
        explained = BatchMaps(maps, passes.pixels, floors, missing, target, captured)
        if self._mirrored is None:
            return explained
        self._mirrored._scorer = self._scorer
        first = mirrored_target(target, self._smoothed)
        masks = None if masks is None else masks.flip(-1)
        again = self._mirrored.explain(inputs.flip(-1), labels, masks, first=first)
        return averaged(explained, again, self._smoothed)

    def _refuse_other_outputs(self, outputs: int | None) -> None:
        known, self._outputs = self._outputs or outputs, self._outputs or outputs
        if outputs != known:
            raise TargetError(
                f"the model gives {outputs} values for each image of this batch and gave {known} "
                "before, so they are not the same classes; let it give the same number every time"
            )

    def probability(self, inputs: Tensor, index: int) -> Tensor:
        """Return a class's probability, float32 (N,): its softmax, or of several labels sigmoid."""
        with guest(self._module), torch.no_grad():
            values = self._scorer.read(self._module(inputs)).ranks.float()
        if self._scorer.given == "probability":
            return values[:, index]
        several = self._scorer.target.reading == "multilabel"
        return (values.sigmoid() if several else values.softmax(1))[:, index]
