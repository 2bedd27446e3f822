"""PyTorch Lightning: maps of the same images after every epoch, in the trainer's own logger."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from exporter.training import Watcher
from exporter.training.watcher import TrainingWarning

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule, Trainer
else:
    # It has two names, and a trainer takes the callbacks of its own.
    _other = "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules
    try:
        Callback = import_module("pytorch_lightning" if _other else "lightning.pytorch").Callback
    except ModuleNotFoundError:
        Callback = import_module("pytorch_lightning").Callback


_TAKEN = ("self", "model", "epoch")
"""Names of metrics that are those of arguments of `Watcher.step`."""


class MapsCallback(Callback):
    """Explain the model after every epoch, as `exporter.Watcher` does.

    Maps are added to the trainer's TensorBoard log or W&B run, whichever logger it has, which stay
    open; runs are kept in ``maps/`` below the trainer's root folder. The sanity check before the
    training is left out, and of several processes the first one explains.

    Examples:
        >>> callback = MapsCallback("photographs/", maps=["gradcam"], every=5)
        >>> trainer = Trainer(callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(
        self,
        images: object,
        *,
        out: str | Path | None = None,
        model: Callable[[LightningModule], nn.Module] | None = None,
        **settings: Any,
    ) -> None:
        """Take what a `Watcher` takes.

        Args:
            images: an image set.
            out: the folder; ``maps/version_0`` below the trainer's ``default_root_dir`` if None,
                with the version of its logger.
            model: returns the part of the LightningModule that is explained, such as
                ``lambda module: module.net``; all of it if None.
            **settings: others of a `Watcher`.
        """
        super().__init__()
        self._images, self._out, self._settings = images, out, settings
        self._part = model or (lambda module: module)
        self.watcher: Watcher | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch, with the trainer's loggers."""
        version = Path(trainer.log_dir or "").name
        # Not in the log's folder, where TensorBoard would show every run twice.
        out = self._out or Path(trainer.default_root_dir) / "maps" / version
        self.watcher = Watcher(self._images, out=out, **self._loggers(trainer), **self._settings)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Explain the model; the validation of the epoch is over, and its metrics are known."""
        if self.watcher is not None:
            known = trainer.callback_metrics.items()
            metrics = {name.replace("/", " "): v for name, v in known if name not in _TAKEN}
            self.watcher.step(self._part(pl_module), trainer.current_epoch, **metrics)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the epochs."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Compare the epochs so far."""
        self._close()

    def _close(self) -> None:
        if self.watcher is not None:
            self.watcher.close()
            self.watcher = None

    def _loggers(self, trainer: Trainer) -> dict[str, Any]:
        own: dict[str, Any] = {}
        for logger in trainer.loggers if trainer.is_global_zero else ():
            experiment = getattr(logger, "experiment", None)
            if hasattr(experiment, "get_logdir"):
                own.setdefault("summary_writer", experiment)
            elif type(logger).__name__ == "WandbLogger":
                own.setdefault("wandb_run", experiment)
        given = self._settings.keys() & {"logdir", "summary_writer", "wandb_run"}
        if trainer.loggers and trainer.is_global_zero and not own and not given:
            kinds = ", ".join(type(logger).__name__ for logger in trainer.loggers)
            said = "takes no maps; they go into a TensorBoard log of their own, beside the epochs"
            warnings.warn(f"the trainer's {kinds} {said}", TrainingWarning, stacklevel=2)
        if "logdir" in self._settings:
            own.pop("summary_writer", None)
        return {name: log for name, log in own.items() if name not in self._settings}
