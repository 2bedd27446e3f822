"""Further images for a trial: what one does not excite, another may."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from torch import Tensor, nn

from exporter.errors import LayerError, ModelError
from exporter.layers.choice import AUTO
from exporter.layers.layout import Reshape
from exporter.layers.stages import choose_stages
from exporter.layers.trial import Trial, run_trial

_MOST = 2
"""Further images that are tried at most."""


def try_images(
    module: nn.Module,
    images: Iterable[Tensor],
    wanted: Sequence[str],
    output: str | None = None,
    reshape: Reshape | None = None,
) -> Trial:
    """Run the trial of the first image, and of another or two if they may change what ``auto`` is.

    Behind a ReLU that an image leaves at zero everywhere no gradient is left, so that the layers
    before it look as if the output did not depend on them. Where that decides what ``auto`` takes,
    others are tried before a layer is left out, and what they reach is reached.

    Args:
        module: the model.
        images: (1, C, H, W) each, taken one by one as they are needed.
        wanted: the layers asked for; without ``auto`` there is no backward.
        output: path of the explained tensor, as `run_trial` takes it.
        reshape: reads a layer's output, likewise.

    Raises:
        ModelError: if the trial of the first image fails.
    """
    further = iter(images)
    first, auto = next(further), AUTO in wanted
    trial = run_trial(module, first, output=output, reshape=reshape, backward=auto)
    for _ in range(_MOST):
        if not _decides(trial) or (image := next(further, None)) is None:
            break
        with suppress(ModelError):  # of this image alone, which its batch will tell
            again = run_trial(module, image, output=output, reshape=reshape)
            reached = (trial.reached or frozenset()) | (again.reached or frozenset())
            trial = replace(trial, reached=reached & trial.planes.keys())
    return trial


def _decides(trial: Trial) -> bool:
    """Say whether ``auto`` would choose otherwise if the silent layers were reached."""
    if trial.reached is None or trial.silent <= trial.reached:
        return False
    try:
        all_reached = replace(trial, reached=trial.reached | trial.silent)
        return choose_stages(trial)[0] != choose_stages(all_reached)[0]
    except LayerError:
        return False
