"""What a run will do, settled before anything is written: the head of the chain."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import nn

from exporter.capture import guest
from exporter.config import RunConfig
from exporter.doors import load_function
from exporter.engines import Job
from exporter.engines.local import default_workers
from exporter.engines.rows import inputs
from exporter.errors import (
    ConfigError,
    ImageError,
    ImageSetError,
    LayerError,
    TargetError,
)
from exporter.explain import FUSED, Explainer, choose_or_offer, classifiers_at, fitting_methods
from exporter.images import ImageSet, open_images
from exporter.layers import Trial, choose_layers, collect_kernels, layer_table, run_trial
from exporter.maps import ATTENTION, get_methods
from exporter.maximise import Request, parse_request, settle
from exporter.models import (
    ResolvedModel,
    adopt,
    match_labels,
    read_classes,
    resolve,
)
from exporter.records import OUTPUT, SCHEMA_VERSION, Plan, Prepared, Preprocessing
from exporter.targets import Target, plan_target
from exporter.watch import Silence, Watch

_PACKAGES = (
    "exporter",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "opencv-python-headless",
    "pillow",
)


@contextmanager
def plan_job(
    config: RunConfig,
    *,
    module: nn.Module | None = None,
    source: object = None,
    watch: Watch | None = None,
    command: str = "",
) -> Iterator[Job]:
    """Resolve everything a run needs, and hold the model as a guest until the block ends.

    Args:
        config: the settings.
        module: the model itself, where it was handed over in Python.
        source: the images themselves, where they were handed over in Python.
        watch: told how the work goes on.
        command: what the report says was run.

    Yields:
        The job: its plan is complete, nothing has been written.

    Raises:
        ExporterError: if something asked for cannot be had.
    """
    watch = watch or Silence()
    methods = get_methods(config.maps)
    requests = [parse_request(text, config.seed) for text in config.maximise]
    watch.begin("reading the image set")
    image_set = open_images(
        source if source is not None else config.images, limit=config.limit, workers=config.workers
    )
    watch.begin("loading the model")
    resolved = _resolve(config, module)
    methods, without = fitting_methods(resolved.module, methods)
    device = _device(config.device, resolved.module, handed_over=module is not None)
    model = resolved.module if module is not None else resolved.module.to(device)
    with guest(model):
        channels_last = _has_convolutions(model)
        if channels_last and module is None:
            model = model.to(memory_format=torch.channels_last)
        prepared = _first_readable(image_set, resolved.record.preprocessing)
        dtype = float_type(model)
        example = inputs([prepared], resolved.record.preprocessing, device, channels_last, dtype)
        reshape = load_function(config.reshape) if config.reshape else None
        trial = run_trial(
            model,
            example,
            output=config.output,
            reshape=reshape,
            backward="auto" in (*config.layers, *config.activations),
        )
        layers = choose_or_offer(trial, config.layers, methods)
        recorded = _recorded(trial, config.activations, layers.names, requests)
        asked = plan_target(
            config.target,
            model,
            example,
            trial.output,
            resolved.record,
            output=config.output,
            load=lambda path: _reference(
                path, resolved.record.preprocessing, device, channels_last, dtype
            ),
            masks=any(entry.mask for entry in image_set.entries),
        )
        record = asked.record
        maximised = tuple(
            wanted
            for request in requests
            for wanted in settle(
                request,
                model,
                example,
                explained=layers.names,
                recorded=recorded,
                classes=record.classes,
                output=config.output,
                reshape=reshape,
            )
        )
        labels = match_labels(
            {entry.label for entry in image_set.entries if entry.label is not None},
            record.classes,
        )

        classifiers = classifiers_at(methods, layers.names, asked.scorer, lambda: trial)

        def explainer(replica: nn.Module) -> Explainer:
            return Explainer(
                replica,
                methods,
                layers.names,
                recorded=recorded,
                channels=config.activation_channels,
                target=asked.scorer,
                top_k=config.top_k,
                layouts={name: plane.layout for name, plane in trial.planes.items()},
                reshape=reshape,
                seed=config.seed,
                fuse=config.fuse,
                classifiers=classifiers,
            )

        kernels = collect_kernels(model, config.kernels) if config.kernels else ()
        unknown = torch.full((1,), -1, device=device)
        masks = None
        if asked.scorer.takes_masks:
            masks = torch.full(example[:, 0].shape, 255, dtype=torch.uint8, device=device)
        first = explainer(model)(example, unknown, masks).to_host()
        beyond = dict.fromkeys(one.layer for one in first.maps if one.layer in (ATTENTION, FUSED))
        yield Job(
            plan=Plan(
                schema=SCHEMA_VERSION,
                settings=config.settings(),
                model=record,
                layers=layer_table(trial),
                explained=(*layers.names, *beyond),
                layer_reason=layers.reason,
                recorded=recorded,
                methods=tuple(method.record for method in methods),
                target=config.target,
                image_set=image_set.where,
                images=image_set.entries,
                shards=_shards(len(image_set.entries), config.shard_size),
                label_match=labels.reason,
                label_index=labels.index,
                execution={
                    "device": device.type,
                    "dtype": str(example.dtype).removeprefix("torch."),
                    "memory format": "channels last" if channels_last else "contiguous",
                    **asked.execution,
                },
                versions=_versions(),
                command=command,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                notes=(
                    *resolved.notes,
                    *image_set.notes,
                    *asked.notes,
                    *_unlabelled(asked.scorer.target, image_set, labels.index),
                    *([without] if without else ()),
                    *(f"{name}: {why}" for name, why in first.missing.items()),
                ),
            ),
            image_set=image_set,
            module=model,
            explainer=explainer,
            kernels=kernels,
            device=device,
            batch_size=config.batch_size,
            channels_last=channels_last,
            workers=config.workers or default_workers(device),
            masks=asked.scorer.takes_masks,
            dtype=dtype,
            faithfulness=config.faithfulness,
            maximised=maximised,
            output=config.output,
            reshape=reshape,
        )


def _resolve(config: RunConfig, module: nn.Module | None) -> ResolvedModel:
    if module is not None:
        return adopt(
            module,
            name=None,
            preprocessing=config.preprocessing,
            classes=read_classes(config.classes) if config.classes else None,
        )
    return resolve(
        config.model,
        weights=config.weights,
        checkpoint=config.checkpoint,
        seed=config.seed,
        preprocessing=config.preprocessing,
        classes=config.classes,
    )


def _device(wanted: str, module: nn.Module, *, handed_over: bool) -> torch.device:
    here = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    if handed_over:
        if wanted not in ("auto", here.type, str(here)):
            raise ConfigError(
                f"the model is on {str(here)!r} and the device asked for is {wanted!r}; "
                "move the model there first, or leave the device at 'auto'"
            )
        return here
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device).cpu()  # a device without memory (meta) refuses
    except (RuntimeError, AssertionError, NotImplementedError):
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ConfigError(
            f"there is no device {wanted!r} here; choose auto or one of {', '.join(there)}"
        ) from None
    return device


def _unlabelled(target: Target, image_set: ImageSet, known: Mapping[str, int]) -> tuple[str, ...]:
    """Say of how many images the label is asked for and is not known."""
    if not any(one.kind == "label" for one in (target, *target.parts)):
        return ()
    count = sum(entry.label not in known for entry in image_set.entries)
    if not count:
        return ()
    return (
        f"{count} of {len(image_set.entries)} images have no known label; the predicted class is "
        "explained for them",
    )


def _has_convolutions(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Conv2d) for part in module.modules())


def float_type(module: nn.Module) -> torch.dtype:
    """Return the type of a model's numbers: its first floating parameter's, or float32."""
    types = (parameter.dtype for parameter in module.parameters())
    return next((one for one in types if one.is_floating_point), torch.float32)


def _first_readable(image_set: ImageSet, preprocessing: Preprocessing) -> Prepared:
    first = ""
    for entry in image_set.entries:
        try:
            return image_set.load(entry, preprocessing)
        except ImageError as error:
            first = first or f"{entry.path!r}: {error}"
    raise ImageSetError(
        f"none of the {len(image_set.entries)} images of {image_set.where!r} can be read; "
        f"the first is {first}"
    )


def _reference(
    path: str,
    preprocessing: Preprocessing,
    device: torch.device,
    channels_last: bool,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, str]:
    """Return a reference image as the model takes it, (1, C, H, W), and the hash of its bytes."""
    images = open_images(path, limit=1)
    entry = images.entries[0]
    try:
        prepared = images.load(entry, preprocessing)
    except ImageError as error:
        raise TargetError(f"the reference image {path!r} cannot be read: {error}") from None
    return inputs([prepared], preprocessing, device, channels_last, dtype), entry.key


def _recorded(
    trial: Trial,
    wanted: tuple[str, ...],
    explained: tuple[str, ...],
    requests: Sequence[Request],
) -> tuple[str, ...]:
    """Choose the layers whose channels are recorded: those asked for, and those maximised."""

    def planes(names: tuple[str, ...]) -> tuple[str, ...]:
        return choose_layers(trial, names).names if names else ()

    maximised: list[str] = []
    for request in requests:
        if request.layer == "auto":
            maximised += explained
        elif request.layer != OUTPUT:
            # A row of values (a linear layer) has no plane; `settle` refuses what is wrong.
            with suppress(LayerError):
                maximised += planes((request.layer,))
    asked = explained if wanted == ("auto",) else planes(wanted)
    return asked if set(maximised) <= set(asked) else planes((*asked, *maximised))


def _shards(images: int, size: int) -> tuple[tuple[int, int], ...]:
    return tuple((start, min(start + size, images)) for start in range(0, images, size))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
