"""How to build the model and the image set of a run again, in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from exporter.config import RunConfig, build_config
from exporter.errors import ConfigError
from exporter.stores import Place


@dataclass(frozen=True)
class Recipe:
    """What a worker needs besides the plan; it can be pickled, and is ``recipe.json`` of a run.

    Attributes:
        config: the settings, which name the model, its checkpoint and the images.
        command: what the report says was run.
        folder: the folder that relative paths in the settings start from; where it is ``""``, or is
            not there, the current one.
        module: the model itself, where it was handed over in Python; it stays in this process.
        source: the images themselves, where they were handed over in Python; likewise.

    Examples:
        >>> config = build_config(model="resnet50", images="photos", out="run")
        >>> Recipe(config).portable, Recipe(config, module=nn.Identity()).portable
        (True, False)
    """

    config: RunConfig
    command: str = ""
    folder: str = ""
    module: nn.Module | None = None
    source: object = None

    @property
    def portable(self) -> bool:
        """Whether another process can build the same."""
        return self.module is None and self.source is None

    def require_portable(self, who: str) -> None:
        """Refuse what was handed over in Python; for whoever needs it in another process.

        Args:
            who: such as ``the engine 'slurm'``, for the message.

        Raises:
            ConfigError: if another process cannot build the model or the images.
        """
        if not self.portable:
            what, name = "model", "package.module:factory"
            if self.module is None:
                what, name = "image set", "a folder"
            raise ConfigError(
                f"the {what} was handed over in Python and {who} would have to build it in another "
                f"process; give {name}"
            )

    def document(self) -> dict[str, Any]:
        """Return the recipe as JSON values; only a portable one has them."""
        settings = self.config.model_dump(mode="json", exclude={"out"})
        return {"settings": settings, "command": self.command, "folder": str(Path.cwd())}

    @classmethod
    def read(cls, document: Mapping[str, Any], run: Place) -> Recipe:
        """Return the recipe that a run folder holds.

        Args:
            document: as ``document`` gave it.
            run: the run folder.

        Raises:
            ConfigError: if a setting is unknown or wrong.
        """
        config = build_config(None, dict(document["settings"]), out=run.absolute())
        return cls(config, document["command"], document["folder"])

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled.

        Raises:
            ConfigError: if the recipe is not portable.
        """
        self.require_portable(f"the engine {self.config.engine!r}")
        return self.__dict__
