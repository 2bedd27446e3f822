"""Hugging Face's Trainer: maps of the same images after every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import finalize

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from exporter.training import Watcher


class MapsCallback(TrainerCallback):
    """Explain the model after every epoch, as `exporter.Watcher` does.

    Runs are kept in ``maps/`` of the trainer's output folder, with a TensorBoard log beside them.
    Of several processes the first one explains. After an exception in the training the epochs so
    far are compared when the callback is deleted, at the end of the program at the latest.

    Examples:
        >>> callback = MapsCallback("photographs/", maps=["gradcam"], every=5)
        >>> trainer = Trainer(model, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(self, images: object, *, out: str | Path | None = None, **settings: Any) -> None:
        """Take what a `Watcher` takes.

        Args:
            images: an image set.
            out: the folder; ``maps/`` in the trainer's output folder if None.
            **settings: others of a `Watcher`.
        """
        self._images, self._out, self._settings = images, out, settings
        self.watcher: Watcher | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begin to watch."""
        self._close()  # of a training that failed before
        if state.is_world_process_zero:
            out = self._out or Path(args.output_dir or ".") / "maps"
            self.watcher = Watcher(self._images, out=out, **self._settings)
            # The trainer tells nobody of an exception: the epochs are compared when it is gone.
            self._closing = finalize(self, self.watcher.close)

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Explain the model, with the numbers that were logged last."""
        if self.watcher is not None and model is not None:
            logged = state.log_history[-1] if state.log_history else {}
            metrics = {name: v for name, v in logged.items() if name not in ("epoch", "step")}
            self.watcher.step(model, round(state.epoch or 0) - 1, **metrics)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Compare the epochs."""
        self._close()

    def _close(self) -> None:
        if self.watcher is not None:
            self._closing()
            self.watcher = None
