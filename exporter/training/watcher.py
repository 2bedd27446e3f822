"""`Watcher`: what a network looks at, epoch by epoch, while it trains."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsFloat

from torch import nn

from exporter.arguments import in_python
from exporter.comparison import compare
from exporter.config import DEFAULT_MAPS, build_config
from exporter.errors import ConfigError, LayerError, RunError, WriterError, kind_of
from exporter.guard import FAILURES, why
from exporter.images import open_images
from exporter.maps import get_methods
from exporter.run import export
from exporter.store import Run, epoch_folder, epochs_in, open_run
from exporter.store.documents import json_bytes
from exporter.store.epochs import TRAINING
from exporter.store.files import RunFiles
from exporter.store.layout import checksum_file, writer_folder
from exporter.stores import on_disk
from exporter.training.beginning import begun, first_plan, settled
from exporter.training.budget import Budget
from exporter.training.choosing import choose
from exporter.training.records import WatchedEpoch
from exporter.training.surroundings import Fitting, as_outside, finite, randomness_kept, rank

COMPARISON, CLASSES = "comparison", "classes.json"
"""The folder with the comparison of the epochs, and the file of their classes."""
_OWN = ("step", "metrics", "resume", "overwrite", "limit", "out", "model", "images")
"""Arguments of ``export`` that a watcher gives itself."""


class TrainingWarning(UserWarning):
    """Part of an epoch could not be explained; the training continues."""


class Watcher:
    """Explain the same images after every epoch, and leave model and training bit for bit as found.

    Every epoch becomes a run in ``OUT/epochs/00012/``, and all of them one TensorBoard log, where
    each image has a slider. On exit, the epochs are compared: ``OUT/comparison/html/index.html``
    has curves of accuracy, agreement, dead channels and drift, and each image in it a slider, too;
    ``exporter compare OUT`` writes that at any time, also during the training. A killed training
    that is resumed continues in the same folder.

    A failure inside never stops the training: it is a `TrainingWarning`, and the epoch is marked in
    ``OUT/training.json``. With several processes only the first one explains, without communicating
    with the others.

    Attributes:
        out: the folder.
        rule: how the images were chosen, in words.

    Examples:
        >>> import tempfile, torch
        >>> from exporter.demo import photographs
        >>> model = nn.Sequential(
        ...     nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        ...     nn.Linear(4, 10),
        ... )
        >>> out = tempfile.mkdtemp() + "/training"
        >>> with Watcher(photographs(), out=out, maps=["gradcam"], limit=2, budget=None) as watcher:
        ...     for epoch in range(2):
        ...         _ = torch.nn.init.normal_(model[4].weight)  # the training
        ...         run = watcher.step(model, epoch, loss=1 / (epoch + 1))
        >>> list(run.epochs)
        [0, 1]
    """

    @in_python
    def __init__(
        self,
        images: object,
        *,
        out: str | Path = "runs/training",
        maps: Sequence[str] = DEFAULT_MAPS,
        layers: Sequence[str] = ("auto",),
        classes: str | Path | Sequence[str] | None = None,
        every: int = 1,
        limit: int = 32,
        budget: str | float | None = "5 %",
        logdir: str | Path | None = None,
        summary_writer: Any = None,
        wandb_run: Any = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        """Choose the images.

        Args:
            images: an image set, as ``exporter.export`` takes it; read again at every epoch.
            out: the folder.
            maps: map methods.
            layers: layers to explain; those that ``auto`` chooses at the first epoch are explained
                at every epoch, as long as the model has them.
            classes: names of the model's outputs, or a file of them; if None, ``.classes`` of
                the data set. Labels that are numbers of a data set then have these names, too.
            every: explain every so many epochs; 1 is all of them.
            limit: images at most. From a larger set they are drawn once, balanced over the labels.
            budget: share of the training's time that explaining may take, such as ``"5 %"``: fewer
                images are explained after the first epoch, and then fewer epochs; None for all.
            logdir: folder of the TensorBoard log; ``OUT/tensorboard`` if None.
            summary_writer: your own SummaryWriter, to whose log the maps are added instead.
            wandb_run: your own W&B run, which is logged to and left open.
            seed: of the draw.
            **settings: others of ``exporter.export``, such as ``preprocessing`` or ``target``.

        Raises:
            ExporterError: if something is wrong with the images or the settings.
        """
        if not isinstance(every, int) or every < 1:
            raise ConfigError(f"every is {every!r}; give the number of epochs between two, from 1")
        if not isinstance(limit, int) or limit < 1:
            raise ConfigError(f"limit is {limit!r}; give a number of images from 1")
        own = next((name for name in settings if name in _OWN), None)
        if own is not None:
            raise ConfigError(f"{own!r} is not a setting of a Watcher, which gives it itself")
        if logdir is not None and summary_writer is not None:
            raise ConfigError("logdir and summary_writer both name a TensorBoard log; give one")
        self.out = on_disk(out, "the epochs of a training are written to the disk")
        self._every = every
        self._budget = Budget(budget)
        writers = ("tensorboard", *(["wandb"] if wandb_run is not None else []))
        self._settings: dict[str, Any] = {
            "maps": maps,
            "layers": layers,
            "seed": seed,
            "writers": writers,
            "keep": limit,
            "summary_writer": summary_writer,
            "wandb_run": wandb_run,
            "tensorboard_dir": None if summary_writer else logdir or self.out / "tensorboard",
            **settings,
        }
        if isinstance(classes, str | Path):
            self._settings["classes"] = classes
        get_methods(maps)
        build_config(model="model", images="images", out=self.out, **self._settings)
        self._explains = not rank()
        self._told, self.rule = set[str](), ""
        if not self._explains:
            return
        with randomness_kept():
            self._images, self.rule = choose(images, limit, seed)
            entries = open_images(self._images, limit=limit).entries
        self._limit, self._of, self._due = limit, images, 0
        self._files = RunFiles(self.out)
        ids = tuple(entry.id for entry in entries)
        self._training = begun(self._files, self.out, self.rule, ids)
        self._chosen = settled(self._settings, first_plan(self.out))
        names = getattr(images, "classes", ()) if classes is None else classes
        if not isinstance(names, str | Path) and names:
            self._files.write(CLASSES, json_bytes([str(name) for name in names]))
            self._settings["classes"] = self.out / CLASSES

    def __enter__(self) -> Self:
        """Return the watcher."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Compare the epochs, also after an error of the training."""
        self.close()

    def step(self, model: nn.Module, epoch: int, **metrics: SupportsFloat) -> Run | None:
        """Explain the model as it is now.

        Args:
            model: the model in training, in any mode, on any device; of what wraps it (compiled,
                ``DistributedDataParallel``, an average of weights) the module inside is taken.
            epoch: number of the epoch, from 0; one that is there already is replaced.
            **metrics: numbers of your own, such as the loss, drawn beside the run's.

        Returns:
            The epoch's run; None where it was left out, failed, or this is not the first process.
        """
        if not self._explains or self._is_between(epoch):
            return None
        numbers = finite(metrics)
        if len(numbers) < len(metrics):
            left = ", ".join(name for name in metrics if name not in numbers)
            self._once("metrics", f"metrics that are no finite number are left out, such as {left}")
        self._due += 1
        refusal = self._with_fewer(self._budget.refusal())
        if refusal:
            self._once("budget", f"epochs are left out to keep the budget: {refusal}")
            self._note(epoch, "left out", refusal, numbers)
            return None
        try:
            with self._budget.spending(), as_outside():
                run, failed = self._explained(model, epoch, numbers)
        except FAILURES as error:
            failed = why(error)
            self._warn(f"epoch {epoch} is not explained: {failed}")
            self._note(epoch, "failed", failed, numbers)
            return None
        self._note(epoch, "explained", failed, numbers)
        return run

    def _with_fewer(self, refusal: str) -> str:
        """After the first epoch, take fewer images if the budget asks; return what it then says."""
        if not refusal or self._due != 2:
            return refusal
        self._limit = self._budget.fewer(len(self._training.images), self._due)
        if self._limit < len(self._training.images):
            self._images, self.rule = choose(self._of, self._limit, self._settings["seed"])
            self._warn(f"from now on fewer images are explained, {self.rule}: {refusal}")
        return self._budget.refusal()

    def _is_between(self, epoch: int) -> bool:
        """Say whether an epoch is none to explain; one that is no number is said."""
        if isinstance(epoch, bool) or not isinstance(epoch, int) or not 0 <= epoch < 10**9:
            self._warn(f"an epoch is not explained: it is {epoch!r}; give its number, from 0")
            return True
        return epoch % self._every > 0

    def _explained(
        self, model: nn.Module, epoch: int, metrics: dict[str, float]
    ) -> tuple[Run, str]:
        if not isinstance(model, nn.Module):
            raise ConfigError(f"the model is {kind_of(model)}; give a torch.nn.Module")
        folder, failed, watch = self.out / epoch_folder(epoch), "", Fitting()
        try:
            run = export(
                model,
                self._images,
                out=folder,
                overwrite=folder.exists(),
                limit=self._limit,
                step=epoch,
                metrics=metrics,
                watch=watch,
                **self._settings | self._chosen,
            )
        except LayerError as error:
            if not self._chosen:
                raise
            self._warn(
                f"epoch {epoch}: the layers of the epochs before do not fit: {error}; auto "
                "chooses others"
            )
            self._chosen = {}
            return self._explained(model, epoch, metrics)
        except WriterError as error:
            failed, run = str(error), open_run(folder)
            self._warn(f"epoch {epoch}: {failed}")
        if watch.images:
            self._settings["batch_size"] = watch.images
            self._warn(f"memory ran out; from now on {watch.images} images are explained together")
        self._chosen = self._chosen or settled(self._settings, run.plan)
        if "html" not in self._settings["writers"]:  # which would lead to it
            # All epochs are in one log, and what was copied there is as large as the maps.
            for name in ("tensorboard", checksum_file(writer_folder("tensorboard"))):
                run.files.remove(name)
        return run, failed

    def _note(self, epoch: int, state: Any, why: str, metrics: dict[str, float]) -> None:
        """Write what came of an epoch into ``training.json``."""
        seconds = 0.0 if state == "left out" else self._budget.last
        entry = WatchedEpoch(epoch, state, why, seconds, metrics)
        others = [other for other in self._training.epochs if other.epoch != epoch]
        epochs = sorted((*others, entry), key=lambda other: other.epoch)
        self._training = replace(self._training, epochs=tuple(epochs))
        try:
            self._files.write(TRAINING, json_bytes(asdict(self._training)))
        except RunError as error:  # no space
            self._once("note", str(error))

    def close(self) -> None:
        """Compare the epochs, if there are two."""
        if not self._explains or len(epochs_in(self.out)) < 2:
            return
        place = self.out / COMPARISON
        try:
            with randomness_kept():
                compare(self.out, out=place, writers=("html",), overwrite=place.exists())
        except FAILURES as error:
            self._warn(f"the epochs are not compared: {why(error)}")

    def _warn(self, said: str) -> None:
        warnings.warn(said, TrainingWarning, stacklevel=3)

    def _once(self, about: str, said: str) -> None:
        if about not in self._told:
            self._told.add(about)
            self._warn(said)
