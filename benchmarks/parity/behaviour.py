"""What must not matter to a map: batches, frozen weights, in-place ReLUs, grad modes, scales."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.parity.counts import Tally, difference
from benchmarks.parity.ours import Images, Maps, maps_of, shown_to
from benchmarks.parity.references import layers_of
from benchmarks.parity.subjects import SUBJECTS, Subject
from benchmarks.parity.taking import array
from exporter.errors import ExporterError

BATCH = 16
BATCH_ALLOWED = 1e-6
"""A batch of 16 against 16 of one: kernels may add up in another order."""
ALLOWED = 1e-9
SCALES = (1e-6, 1e6)
DEPENDS = 1e-3
"""A method that is said to depend on the scale of the logits has to change by more than this."""

BY_DEFINITION = {
    "gradcam++": "S is taken for the logarithm of a score exp(S): α = 1 / (2 + g·ΣA) compares g·ΣA,"
    " which has the scale of the logits, with 2",
    "refinecam": "it multiplies Grad-CAM++'s maps",
    "scorecam": "its weights are a softmax over the channels of logits",
    "chefer": "R = R + Ā·R multiplies gradients of several blocks and adds them to those of one",
}
"""Methods whose normalised map depends on the scale of the logits, and why."""


class Behaviour:
    """All comparisons on one architecture; they share its maps in float64."""

    def __init__(
        self,
        architecture: str,
        methods: Sequence[str],
        parts: dict[str, Tally],
        *,
        quick: bool = False,
    ) -> None:
        """Take what is looked at.

        Args:
            architecture: name of one of `SUBJECTS`.
            methods: registry names.
            parts: where is counted, by the names of the JSON.
            quick: only the first and the last image of the batch are compared.
        """
        self._step = BATCH - 1 if quick else 1
        self._architecture = architecture
        self._subject: Subject = SUBJECTS[architecture]
        self._methods = [one for one in methods if layers_of(one, self._subject)]
        self._parts = parts
        self._model = self._subject.model()
        self._shown = shown_to(self._subject, 2)
        self._plain = self._maps(self._model)

    def compare(self) -> None:
        """Compare everything."""
        if not self._methods:
            return
        self.batch()
        free = copy.deepcopy(self._model).requires_grad_(True)
        self._same("frozen", self._maps(free))
        self._same("inplace", self._maps(turned(self._model)))
        for part, mode in (("no_grad", torch.no_grad), ("inference_mode", torch.inference_mode)):
            self._same(part, self._under(mode))
        self.inference_parameters()
        self.logit_scale()

    def batch(self) -> None:
        """Compare a batch of 16 with 16 batches of one."""
        shown = shown_to(self._subject, BATCH)
        together = self._maps(self._model, shown)
        for number in range(0, BATCH, self._step):
            here = slice(number, number + 1)
            alone = self._maps(self._model, Images(shown.images[here], shown.targets[here]))
            for key, maps in alone.items():
                self._add("batch", key, together[key][number], maps[0], BATCH_ALLOWED)

    def inference_parameters(self) -> None:
        """See that weights made under inference mode are refused in words."""
        with torch.inference_mode():
            model = copy.deepcopy(self._model)
            for owner in model.modules():
                for name, parameter in list(owner._parameters.items()):
                    if parameter is not None:
                        made = nn.Parameter(parameter.clone(), requires_grad=False)
                        owner._parameters[name] = made
        try:
            self._maps(model)
        except ExporterError as error:
            if "inference_mode" in str(error) and "\n" not in str(error):
                return
            why = f"was refused without the reason: {error}"
        else:
            why = "weights made under inference mode were not refused"
        self._parts["inference_mode"].miss("", (self._architecture, ""), why)

    def logit_scale(self) -> None:
        """Multiply the logits; only the methods of `BY_DEFINITION` may, and have to, change."""
        if not self._subject.head:
            return
        part = self._parts["logit_scale"]
        largest: dict[str, float] = {}
        for factor in SCALES:
            model = copy.deepcopy(self._model)
            with torch.no_grad():
                for name in self._subject.head:
                    for parameter in model.get_submodule(name).parameters():
                        parameter.mul_(factor)
            for key, maps in self._maps(model).items():
                for one, plain in zip(maps, self._plain[key], strict=True):
                    found, right = _normalised(one), _normalised(plain)
                    if key[0] not in BY_DEFINITION:
                        self._add("logit_scale", key, found, right, ALLOWED)
                        continue
                    changed = difference(found, array(right))
                    largest[key[0]] = max(largest.get(key[0], 0.0), changed)
        for method, changed in largest.items():
            if not changed > DEPENDS:
                why = f"is said to depend on the scale of the logits, and changed by {changed:.3g}"
                part.miss(method, (self._architecture, ""), why)

    def _maps(self, model: nn.Module, shown: Images | None = None) -> Maps:
        # One layer of the dear methods is enough to see what matters.
        return maps_of(self._subject, model, shown or self._shown, self._methods, narrow=1)

    def _under(self, mode: Callable[[], AbstractContextManager[Any]]) -> Maps:
        with mode():
            return self._maps(self._model, Images(self._shown.images.clone(), self._shown.targets))

    def _same(self, part: str, found: Maps) -> None:
        for key, maps in self._plain.items():
            for ours, right in zip(found[key], maps, strict=True):
                self._add(part, key, ours, right, ALLOWED)

    def _add(
        self, part: str, key: tuple[str, str], found: Tensor, right: Tensor, allowed: float
    ) -> None:
        where = (self._architecture, key[1])
        self._parts[part].add(key[0], where, found, array(right), allowed)


def turned(model: nn.Module) -> nn.Module:
    """Return a copy whose activations work in place where they did not, and the other way round."""
    model = copy.deepcopy(model)
    module: Any
    for module in model.modules():
        if isinstance(getattr(module, "inplace", None), bool):
            module.inplace = not module.inplace
    return model


def _normalised(values: Tensor) -> Tensor:
    """Return one image's map scaled to [0, 1]; zeros where it is the same everywhere."""
    lowest, span = values.min(), values.max() - values.min()
    return (values - lowest) / (span if bool(span > 0) else 1)
