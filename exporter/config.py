"""Settings of a run: a TOML file, flags and Python arguments, all checked before a model loads."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from exporter.errors import ConfigError, ExporterError, choices, reason
from exporter.writers import Writer, find_writer
from exporter.writers.options import (
    HtmlSettings,
    LinkSettings,
    TensorBoardSettings,
    WandbSettings,
)

DEFAULT_MAPS = ("gradcam", "layercam", "eigencam")
OWN_WRITERS = ("tensorboard", "wandb", "html")
"""What is written unless told otherwise."""

Positive = Annotated[int, Field(gt=0)]

_M = TypeVar("_M", bound=BaseModel)


class PreprocessingConfig(BaseModel):
    """Overrides of the preprocessing that comes with the weights; what is None is left as it is.

    Attributes:
        size: input size in pixels: one number, or (height, width).
        resize: shorter side after resizing, (height, width), or 0 for no resizing.
        crop: ``center`` or ``none``.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``.
        mean: one value per channel, in [0, 1] units.
        std: one value per channel, in [0, 1] units; its length is the number of channels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Positive | tuple[Positive, Positive] | None = None
    resize: Annotated[int, Field(ge=0)] | tuple[Positive, Positive] | None = None
    crop: Literal["center", "none"] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None

    @model_validator(mode="after")
    def _same_channels(self) -> PreprocessingConfig:
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} values and std has {len(self.std)}; give one per "
                "channel"
            )
        return self


class WriterConfig(LinkSettings, TensorBoardSettings, WandbSettings, HtmlSettings):
    """What only the writers read; it decides nothing of a run's contents.

    Attributes:
        writers: which writers run.
        keep: images that go to TensorBoard and W&B and whose strongest channels the report shows,
            a number or ``all``.
        writer_options: options of writers by the writer's name, a table each; for those that are
            installed beside the exporter.
    """

    writers: tuple[str, ...] = OWN_WRITERS
    keep: Annotated[int, Field(ge=0)] | Literal["all"] = 64
    writer_options: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("writers")
    @classmethod
    def _known_writers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            _known(name)
        return tuple(dict.fromkeys(value))

    @field_validator("writer_options")
    @classmethod
    def _known_options(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, options in value.items():
            model = _known(name).options
            try:
                model.model_validate(options)
            except ValidationError as error:
                raise ValueError(f"of the writer {name!r}, {_sentence(error, model)}") from None
        return value


def _known(name: str) -> Writer:
    try:
        return find_writer(name)
    except ExporterError as error:
        raise ValueError(str(error)) from None


class RunConfig(WriterConfig):
    """Everything ``exporter run`` can be told; the fields are the flags' long names.

    What only the writers read is ``WriterConfig``'s.

    Attributes:
        model: model spec, ``torchvision:resnet50``, ``timm:NAME``, ``package.module:factory`` or
            ``path/file.py:factory``; a name when a module object is handed over in Python.
        images: a folder, a folder of class folders, a glob, a CSV/JSONL/Parquet list,
            ``module:factory`` or ``path/file.py:factory`` giving a torch Dataset, or a plug-in's
            place.
        out: the run folder.
        maps: map methods, in the order shown.
        layers: layers to explain: names, globs, ``@Type`` or ``auto``.
        target: ``predicted``, ``label``, ``top-K``, a class index or a class name, or any other
            that docs/models.md lists.
        weights: name of the weights, ``DEFAULT`` or ``none``.
        checkpoint: a ``.pt`` (read weights_only) or ``.safetensors`` file laid over the weights.
        output: path of the explained tensor inside the model's output, such as ``logits`` or ``0``.
        reshape: ``module:function`` or ``path/file.py:function``, from a layer's output to
            (N, C, H, W), where its shape does not tell how it lies.
        batch_size: images per forward pass.
        shard_size: images per shard.
        workers: decoding threads; 0 chooses.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        seed: seeds the weights where there are none, and every random choice.
        limit: the first so many images, or None for all.
        classes: file of class names, one per line, or a JSON list.
        top_k: predictions kept per image.
        activations: layers whose strongest channels are recorded; ``auto`` is the explained ones.
        activation_channels: channels kept per layer and image.
        kernels: layers or parameters whose kernels are drawn; ``auto`` is the first convolution.
        fuse: ``mean``, ``max`` or ``product``: how the maps of all explained layers are combined
            into one more.
        faithfulness: whether deletion, insertion and ROAD are measured.
        engine: who computes the shards: ``local``, or a plug-in's name.
        maximise: channels and classes that pictures are made for, ``LAYER:CHANNELS`` and settings.
        preprocessing: overrides of the preprocessing.
    """

    model: str
    images: str
    out: Path
    maps: tuple[str, ...] = DEFAULT_MAPS
    layers: tuple[str, ...] = ("auto",)
    target: str = "predicted"
    weights: str = "DEFAULT"
    checkpoint: Path | None = None
    output: str | None = None
    reshape: str | None = None
    batch_size: Positive = 16
    shard_size: Positive = 256
    workers: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    limit: Positive | None = None
    classes: Path | None = None
    top_k: Positive = 5
    activations: tuple[str, ...] = ("auto",)
    activation_channels: Annotated[int, Field(ge=0)] = 8
    kernels: tuple[str, ...] = ("auto",)
    fuse: Literal["mean", "max", "product"] | None = None
    faithfulness: bool = False
    engine: str = "local"
    maximise: tuple[str, ...] = ()
    preprocessing: PreprocessingConfig = PreprocessingConfig()

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, values: Any) -> Any:
        if isinstance(values, dict) and "quality" in values:
            values = {"faithfulness": values["quality"], **values}
            del values["quality"]
        return values

    @field_validator("maps", "layers", "activations", "kernels", "maximise")
    @classmethod
    def _once_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    def settings(self) -> dict[str, Any]:
        """Return what decides the run's contents, as JSON values.

        ``out``, ``workers``, ``engine``, the writers and what only they read are left out, so that
        a run can be resumed with others and rendered again elsewhere.
        """
        left_out = {"out", "workers", "engine", *WriterConfig.model_fields}
        return self.model_dump(mode="json", exclude=left_out)


def build_config(
    file: str | Path | None = None, flags: dict[str, Any] | None = None, **arguments: Any
) -> RunConfig:
    """Build the settings of a run; later sources win: file, then flags, then arguments.

    Args:
        file: a TOML file whose keys are the long flags' names, with ``-`` or ``_``.
        flags: values from the command line; those that are None were not given.
        **arguments: values from Python; those that are None were not given.

    Returns:
        The checked settings.

    Raises:
        ConfigError: if the file cannot be read, or a setting is unknown or wrong; one sentence that
            names the setting, the bad value and what would be right.
    """
    values: dict[str, Any] = {} if file is None else _read_toml(Path(file))
    for source in (flags or {}, arguments):
        values.update({name: value for name, value in source.items() if value is not None})
    return _checked(RunConfig, values)


def build_writer_config(values: dict[str, Any]) -> WriterConfig:
    """Build what only the writers read.

    Raises:
        ConfigError: if a setting is unknown or wrong.
    """
    return _checked(WriterConfig, values)


def _checked(kind: type[_M], values: dict[str, Any]) -> _M:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error, kind)) from None


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the configuration {str(file)!r} cannot be read: {reason(error)}"
        ) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration {str(file)!r} is not TOML: {error}") from None
    return {name.replace("-", "_"): value for name, value in values.items()}


def _sentence(error: ValidationError, kind: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        return f"there is no setting {where!r}; {choices(name, kind.model_fields)}"
    if first["type"] == "missing":
        return f"the setting {where!r} is missing; give --{where.replace('_', '-')}"
    # Of a union pydantic also names the branch that it tried, which is no setting.
    fields = kind.model_fields.keys() | PreprocessingConfig.model_fields.keys()
    where = ".".join(part for part in first["loc"] if isinstance(part, str) and part in fields)
    if where == "keep":
        return f"the setting 'keep' is {first['input']!r}: give a number or all"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message if where == "" else f"{where}: {message}"
    return f"the setting {where!r} is {first['input']!r}: {message[:1].lower()}{message[1:]}"
