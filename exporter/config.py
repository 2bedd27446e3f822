"""Settings of a run: a TOML file, flags and Python arguments, all checked before a model loads.

The module is longer than 300 lines for the help that each setting carries.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Container
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from exporter.errors import ConfigError, WriterError, choices, reason
from exporter.stores import Place, place_of
from exporter.writers import find_writer
from exporter.writers.options import (
    HtmlSettings,
    LinkSettings,
    ReviewSettings,
    TensorBoardSettings,
    TrainingSettings,
    WandbSettings,
    setting,
)

DEFAULT_MAPS = ("gradcam", "layercam", "eigencam")
OWN_WRITERS = ("tensorboard", "wandb", "html")
"""What is written unless told otherwise."""

_ASKED = {
    "keep": "a number or all",
    "batch_size": "a number above 0, or auto",
    "processes": "a number above 0, or auto",
    "devices": "all, or numbers of CUDA cards such as 0,2",
    "preprocessing.size": "a number of pixels above 0, or [height, width]",
    "preprocessing.resize": "a number of pixels, [height, width], or 0 for no resizing",
    "preprocessing.bands": "numbers of bands, from 1, such as [3, 2, 1]",
    "preprocessing.range": "two numbers, [black, white]",
}
"""What a setting has to be, where pydantic says it in too many words."""

_KINDS = {
    "bool": "true or false",
    "dict": "a table of names and values",
    "float": "a number",
    "int": "a whole number",
    "model": "a table of settings",
    "string": "a text",
    "tuple": "a list",
}
"""What a value of a wrong type has to be, by the first word of pydantic's name of the error."""

_JOINED = re.compile(r"[\w.@+*#:-]+(?:,[\w.@+*#:-]+)+")
"""Names in one text: none of them a glob's brackets, a path or a method's settings."""

Positive = Annotated[int, Field(gt=0)]
RunPlace = Annotated[Place, PlainValidator(place_of), PlainSerializer(str)]

_M = TypeVar("_M", bound=BaseModel)
_W = TypeVar("_W", bound="WriterConfig")


def _apart(value: Any) -> Any:
    """Return one text as a list, and names that are joined by commas one by one."""
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        return value
    joined = (isinstance(text, str) and _JOINED.fullmatch(text) for text in texts)
    parts = (
        text.split(",") if apart else [text] for text, apart in zip(texts, joined, strict=True)
    )
    return tuple(name for part in parts for name in part)


class PreprocessingConfig(BaseModel):
    """Overrides of the preprocessing that comes with the weights; what is None is left as it is.

    Attributes:
        size: input size in pixels: one number, or (height, width).
        resize: shorter side after resizing, (height, width), or 0 for no resizing.
        mean: one value per channel, in [0, 1] units.
        std: likewise; its length is the number of channels.
        bits: bits per channel that pictures of 16 bits use, such as 12.
        bands: numbers of a picture's bands, from 1: as many as the model has channels, or the 1 or
            3 that are shown.
        range: numbers of a picture that become black and white.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Positive | tuple[Positive, Positive] | None = None
    resize: Annotated[int, Field(ge=0)] | tuple[Positive, Positive] | None = None
    crop: Literal["center", "none"] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    bits: Annotated[int, Field(ge=8, le=16)] | None = None
    bands: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    range: tuple[FiniteFloat, FiniteFloat] | None = None

    @model_validator(mode="after")
    def _same_channels(self) -> PreprocessingConfig:
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            values = f"mean has {len(self.mean)} values and std has {len(self.std)}"
            raise ValueError(f"{values}; give one per channel")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(
                "range is [{:g}, {:g}]; give the number that is black and then a higher one that "
                "is white".format(*self.range)
            )
        if self.range is not None and self.bits is not None:
            raise ValueError(
                f"bits = {self.bits} and range both say what is white; give one of them"
            )
        return self


class WriterConfig(
    LinkSettings, TrainingSettings, TensorBoardSettings, WandbSettings, HtmlSettings, ReviewSettings
):
    """What only the writers read; it decides nothing of a run's contents."""

    writers: tuple[str, ...] = setting(
        OWN_WRITERS,
        "A writer to run: tensorboard, wandb, html or an installed one; repeatable.",
        "NAME,…",
        "these three",
    )
    keep: Annotated[int, Field(ge=0)] | Literal["all"] = setting(
        64,
        "How many images TensorBoard and W&B show, and the report with their strongest channels; "
        "documented rules choose them.",
        "N|all",
    )
    writer_options: dict[str, dict[str, Any]] = setting(
        {}, "An option of an installed writer; repeatable.", "NAME.KEY=VALUE"
    )

    @field_validator("writers", mode="before")
    @classmethod
    def _one_or_more_writers(cls, value: Any) -> Any:
        return _apart(value)

    @field_validator("writers")
    @classmethod
    def _known_writers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            find_writer(name)
        return tuple(dict.fromkeys(value))

    @field_validator("writer_options")
    @classmethod
    def _known_options(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, options in value.items():
            model = find_writer(name).options
            try:
                model.model_validate(options)
            except ValidationError as error:
                raise ConfigError(f"of the writer {name!r}, {_sentence(error, model)}") from None
        return value


class RunConfig(WriterConfig):
    """Everything ``exporter run`` can be told; the fields are the flags' long names.

    What only the writers read is ``WriterConfig``'s. A setting that is not declared by ``setting``
    has no flag.
    """

    model: str = setting(
        ..., "torchvision:resnet50, timm:NAME, module:factory, file.py:factory.", "SPEC"
    )
    images: str = setting(
        ...,
        "A folder, class folders, a glob, a CSV/JSONL/Parquet list, WebDataset archives "
        "('train-{000..010}.tar'), any of these in a store (s3://bucket/photos), hf:NAME or "
        "hf:FOLDER of Hugging Face, wandb:ENTITY/PROJECT/NAME:ALIAS, module:factory, "
        "file.py:factory, or anything that an installed image source accepts.",
        "WHERE",
    )
    http: bool = setting(
        False, "Let --images be a web address, http:// or https://; other stores need no flag."
    )
    out: RunPlace = setting(
        ..., "The run folder, or an address in a store, such as s3://bucket/run.", "RUN"
    )
    maps: tuple[str, ...] = setting(
        DEFAULT_MAPS,
        "A map method ('exporter maps' lists them), captum:NAME or zennit:NAME, or "
        "path/file.py:function for one of your own; repeatable.",
        "M,…",
    )
    layers: tuple[str, ...] = setting(
        ("auto",), "A layer to explain: name, glob, @Type or auto; repeatable.", "L"
    )
    fuse: Literal["mean", "max", "product"] | None = setting(
        None,
        "Also combine each method's maps of all layers into one, shown as the layer 'fused'.",
    )
    faithfulness: bool = setting(
        False,
        "Also measure how faithful the deepest layer's maps are: deletion, insertion, ROAD; about "
        "42 forward passes per image and method.",
    )
    sanity: bool = setting(
        False,
        "Also randomise the model stage by stage from its output down, with the run's seed, and "
        "measure how much each method's maps change; one pass of all methods per stage.",
    )
    target: str = setting(
        "predicted",
        "predicted, label, top-K, a class index or name, A-B, A+B, prob:T, value, box:N, mask, "
        "similar:IMAGE, text:TEXT, module:function; docs/models.md lists all.",
        "T",
    )
    weights: str = setting("DEFAULT", "Name of the weights, DEFAULT or none.", "W")
    checkpoint: Path | None = setting(
        None,
        "A .pt (read weights_only) or .safetensors file, or wandb:ENTITY/PROJECT/NAME:ALIAS.",
        "FILE",
    )
    output: str | None = setting(
        None, "Which tensor of the model's output to explain, such as logits or 0.", "PATH"
    )
    reading: Literal["auto", "logits", "probability", "value"] = setting(
        "auto",
        "What the output's numbers are: logits, probability or value; auto decides from the first "
        "image.",
        "R",
    )
    reshape: str | None = setting(
        None,
        "module:function that turns a layer's output into (N, C, H, W), where its shape does not "
        "say how.",
        "FUNCTION",
    )
    encoder: str | None = setting(
        None,
        "module:function that turns a layer's channels (N, C, H, W) into features (N, F, H, W), "
        "such as a sparse autoencoder's encoder; they are recorded as the channels of 'features'.",
        "[LAYER=]FUNCTION",
    )
    batch_size: Positive | Literal["auto"] = setting(
        16, "Images per forward pass; auto doubles them as long as they fit in memory.", "N|auto"
    )
    shard_size: Positive = setting(256, "Images per shard.", "N")
    workers: Annotated[int, Field(ge=0)] = setting(
        0, "Decoding threads; 0 lets the exporter choose.", "N"
    )
    processes: Positive | Literal["auto"] = setting(
        "auto",
        "Processes that compute the shards on this machine; auto uses several if one cannot keep a "
        "CUDA card busy.",
        "N|auto",
    )
    precision: Literal["float32", "bf16", "fp16"] = setting(
        "float32",
        "Number format of the model, by autocast; maps are still computed in float32, and the "
        "difference is measured on the first images.",
    )
    compile: bool = setting(
        False,
        "Compile the shared pass with torch.compile; only with methods that need no pass of their "
        "own.",
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps.", "D")
    devices: Literal["all"] | tuple[Annotated[int, Field(ge=0)], ...] | None = setting(
        None,
        "CUDA cards that share the run, one process each: all, or numbers such as 0,2.",
        "all|0,2",
    )
    profile: bool = setting(
        False,
        "Also measure how long each stage takes: a table (profile.json, in the report and at the "
        "end) and a trace for Perfetto or chrome://tracing (trace.json).",
    )
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = setting(
        0, "Seed of random weights and of every random choice.", "N"
    )
    engine: str = setting(
        "local", "What computes the shards: local, ray, or an installed plug-in.", "NAME"
    )
    limit: Positive | None = setting(None, "Only the first N images.", "N")
    classes: Path | None = setting(None, "Class names: one per line, or a JSON list.", "FILE")
    top_k: Positive = setting(5, "Predictions kept per image.", "N")
    activations: tuple[str, ...] = setting(
        ("auto",),
        "A layer whose strongest channels are kept; repeatable.",
        "L",
        "the explained layers",
    )
    activation_channels: Annotated[int, Field(ge=0)] = Field(
        8, description="Channels kept per layer and image."
    )
    kernels: tuple[str, ...] = setting(
        ("auto",),
        "A layer or parameter whose kernels are drawn; repeatable.",
        "L",
        "the first convolution",
    )
    maximise: tuple[str, ...] = setting(
        (),
        "Also make pictures that excite channels, such as layer4:0,3,10-14, layer4:strongest=8 or "
        "output:CLASSES, with settings such as :prior=none:steps=256; repeatable. docs/maps.md "
        "lists the settings.",
        "LAYER:CHANNELS",
    )
    preprocessing: PreprocessingConfig = Field(
        PreprocessingConfig(),
        description="Overrides of the preprocessing: size, resize, crop, interpolation, mean, std, "
        "bits, bands, range.",
    )

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, values: Any) -> Any:
        if isinstance(values, dict) and "quality" in values:
            values = {"faithfulness": values["quality"], **values}
            del values["quality"]
        return values

    @field_validator("devices", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        listed = isinstance(value, str) and value != "all"
        return tuple(value.split(",")) if listed else value or None

    @model_validator(mode="after")
    def _on_cards(self) -> RunConfig:
        if self.devices is not None and self.device not in ("auto", "cuda"):
            raise ValueError(
                f"--devices names CUDA cards and --device is {self.device!r}; give one of them"
            )
        return self

    @field_validator("maps", mode="before")
    @classmethod
    def _one_or_more_maps(cls, value: Any) -> Any:
        return _apart(value)

    @field_validator("layers", "activations", "kernels", "maximise", mode="before")
    @classmethod
    def _one_request_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("maps", "layers", "activations", "kernels", "maximise")
    @classmethod
    def _once_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    def settings(self) -> dict[str, Any]:
        """Return what decides the run's contents, as JSON values.

        ``http``, ``out``, ``profile``, ``workers``, ``processes``, ``devices``, ``engine``, the
        writers and what only they read are left out, so that a run can be resumed with others and
        rendered again elsewhere.
        """
        how = {"http", "out", "profile", "workers", "processes", "devices", "engine"}
        left_out = {*how, *WriterConfig.model_fields}
        return self.model_dump(mode="json", exclude=left_out)


def build_config(
    file: str | Path | None = None, flags: dict[str, Any] | None = None, **arguments: Any
) -> RunConfig:
    """Build the settings of a run; later sources win: file, then flags, then arguments.

    Args:
        file: a TOML file whose keys are the arguments' names, with ``-`` or ``_``.
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
    return _with_its_file(_checked(RunConfig, values, flags or {}), values)


def build_writer_config(values: dict[str, Any], told: dict[str, Any] | None = None) -> WriterConfig:
    """Build what only the writers read.

    Args:
        values: values that are given now.
        told: what the writers were told before, where they are not given anew.

    Raises:
        ConfigError: if a setting is unknown or wrong.
    """
    flags = () if told is None else values  # only the command line tells again
    return _with_its_file(_checked(WriterConfig, {**(told or {}), **values}, flags), values)


def _with_its_file(config: _W, given: dict[str, Any]) -> _W:
    default = WriterConfig.model_fields["max_size"].default
    if "max_size" in given and config.max_size != default and not config.single_file:
        raise ConfigError("--max-size is the size of the single file: give --single-file too")
    return config


def flag_of(name: str, field: FieldInfo) -> str:
    """Return the flag of a setting; of one that can be repeated it names a single value."""
    flag = f"--{name.replace('_', '-')}"
    return flag.removesuffix("s") if get_origin(field.annotation) in (tuple, dict) else flag


def _checked(kind: type[_M], values: dict[str, Any], flags: Container[str] = ()) -> _M:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error, kind, flags)) from None
    except WriterError as error:
        raise ConfigError(str(error)) from None


def _read_toml(file: Path) -> dict[str, Any]:
    called = f"the configuration {str(file)!r}"
    try:
        with file.open("rb") as opened:  # of a device, which may never end, a part
            values = tomllib.loads(opened.read(1_000_000).decode())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{called} is not TOML: {error}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{called} cannot be read: {reason(error)}") from None
    return {name.replace("-", "_"): value for name, value in values.items()}


def _sentence(error: ValidationError, kind: type[BaseModel], flags: Container[str] = ()) -> str:
    # A name that is misspelled is why another is missing.
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda each: each["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    # Of a union pydantic also names the branch that it tried, which is no setting.
    fields = kind.model_fields.keys() | PreprocessingConfig.model_fields.keys()
    told = ".".join(part for part in first["loc"] if isinstance(part, str) and part in fields)
    flag = flag_of(told, kind.model_fields[told]) if told in flags else ""
    called = flag or f"the setting {told!r}"
    if asked := _ASKED.get(told):
        return f"{called} is {first['input']!r}; give {asked}"
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        beside = _fields_beside(first["loc"], kind)
        return f"there is no setting {where!r}; {choices(name, beside)}"
    if first["type"] == "missing":
        return f"the setting {where!r} is missing; give --{where.replace('_', '-')}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message if told == "" else f"{flag or told}: {message}"
    of, _, what = first["type"].partition("_")
    if of in _KINDS and what in ("type", "parsing", "from_float"):
        return f"{called} is {first['input']!r}; give {_KINDS[of]}"
    return f"{called} is {first['input']!r}: {message[:1].lower()}{message[1:]}"


def _fields_beside(where: tuple[int | str, ...], kind: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the settings among which one is not: those of the table that it stands in."""
    for part in where[:-1]:
        inner = kind.model_fields[str(part)].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    return kind.model_fields
