"""What a run will do, settled before anything is written: the head of the chain.

The module is longer than 300 lines so that what is settled, and when, is read in one place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from exporter.capture import lent, refuse_unfit, rounds_to_tf32
from exporter.config import RunConfig
from exporter.doors import importing
from exporter.engines import Job, Recipe
from exporter.engines.beside import cards_of
from exporter.engines.local import default_workers
from exporter.engines.tuning import tuned
from exporter.errors import ConfigError, ImageError, LayerError, ModelError, RunError, TargetError
from exporter.explain import (
    FUSED,
    Explainer,
    Sanity,
    choose_or_offer,
    classifiers_at,
    fitting_methods,
    inputs,
)
from exporter.faithfulness import load_metrics, stages_of
from exporter.guard import AGAIN, user_code
from exporter.images import ImageSet, open_images, reopen_images
from exporter.layers import (
    ClassifierError,
    Encoder,
    GivenReshape,
    Trial,
    choose_layers,
    collect_kernels,
    find_classifier,
    find_out,
    layer_table,
    layout_records,
    try_images,
)
from exporter.maps import Method, get_methods, lightest
from exporter.maximise import Request, parse_request, settle
from exporter.models import (
    ResolvedModel,
    adopt,
    choose_device,
    float_type,
    has_convolutions,
    read_classes,
    refuse_precision,
    resolve,
)
from exporter.paths import without_folders
from exporter.plans import execution_of, make_plan
from exporter.records import (
    ATTENTION,
    FEATURES,
    OUTPUT,
    Findings,
    HeadRecord,
    Plan,
    Prepared,
    Preprocessing,
)
from exporter.store import CODE_CHANGED, code_changed, plan_differences
from exporter.stores import is_web
from exporter.targets import PlannedTarget, Scorer, plan_target
from exporter.watch import Watch
from exporter.writers.wandb.artifacts import fetch, fetch_checkpoint, is_artifact

_ASKING = 16
"""Threads that load images from a store, which answers a while after it was asked."""


@contextmanager
def bind(
    recipe: Recipe, *, planned: Plan | None = None, watch: Watch | None = None
) -> Iterator[Job]:
    """Build the model and the images, settle the rest, and hold the model as a guest meanwhile.

    Args:
        recipe: how to build them.
        planned: the plan of a run that is gone on with: its images are not hashed again, and what
            is built has to be what was planned.
        watch: is told about progress.

    Yields:
        The job: its plan is complete, nothing has been written.

    Raises:
        ExporterError: if something asked for is not available, or is not what was planned.
    """
    watch = watch or Watch()
    recipe, checkpoint, images = _fetched(recipe, watch)
    config = recipe.config
    with ExitStack() as stack:
        if recipe.folder and Path(recipe.folder).is_dir():
            stack.enter_context(contextlib.chdir(recipe.folder))
        methods = get_methods(config.maps)
        watch.begin("reading the image set")
        where = images if recipe.source is None else recipe.source
        _refuse_web(where, config)
        if planned is None:
            image_set = open_images(where, limit=config.limit, workers=config.workers)
        else:
            ready = "items" in planned.execution
            image_set = reopen_images(where, planned.images, limit=config.limit, ready=ready)
        watch.begin("loading the model")
        with user_code("the model", advice=AGAIN), importing():
            resolved = _resolve(config, checkpoint, recipe.module)
            methods, without = fitting_methods(resolved.module, methods)
            cards = cards_of(config)
            wanted = f"cuda:{cards[0]}" if cards else config.device
            if planned is not None and wanted == "auto":
                wanted = planned.execution["device"]
            device = choose_device(wanted, resolved.module, handed_over=recipe.module is not None)
            model = resolved.module
            refuse_unfit(model)
            refuse_precision(config.precision, model, device)
            channels_last = has_convolutions(model)
            # Before the guest, which would put tensors back that took another format.
            if recipe.module is None:
                model = model.to(device)
                if channels_last:
                    model = model.to(memory_format=torch.channels_last)
            stack.enter_context(lent(model))
            resolved = replace(resolved, module=model)
        watch.begin("trying the model")
        with user_code("the model", "the first image", advice=AGAIN):
            job = _settle(
                recipe, resolved, image_set, methods, device=device, channels_last=channels_last
            )
        if without:
            job = replace(job, plan=replace(job.plan, notes=(*job.plan.notes, without)))
        job = stack.enter_context(tuned(job, planned))
        yield job if planned is None else replace(job, plan=_as_planned(job.plan, planned))


def _refuse_web(where: object, config: RunConfig) -> None:
    """Refuse a web address where none is asked for: whoever runs it hears of every request."""
    if is_web(where) and not config.http:
        raise ConfigError(
            f"{without_folders(str(where))!r} is a web address; give --http to read images from it"
        )


def _as_planned(here: Plan, planned: Plan) -> Plan:
    """Return the plan of the run, if what was built here is what it says."""
    clauses = plan_differences(planned, here)
    if code_changed(planned, here):
        clauses.append(CODE_CHANGED)
    if clauses:
        raise RunError(
            f"the model or the images here are not those of the plan: {'; '.join(clauses)}; plan "
            "the run again, or restore what was planned"
        )
    return planned


def _settle(
    recipe: Recipe,
    resolved: ResolvedModel,
    image_set: ImageSet,
    methods: Sequence[Method],
    *,
    device: torch.device,
    channels_last: bool,
) -> Job:
    """Hold what is asked for against the model, with the first image that can be read."""
    config, model, preprocessing = recipe.config, resolved.module, resolved.record.preprocessing
    dtype = float_type(model)

    def lay(prepared: Prepared) -> torch.Tensor:
        return inputs([prepared], preprocessing, device, channels_last, dtype)

    image_set.settle(preprocessing)
    example = lay(image_set.load_first(preprocessing))
    reshape = GivenReshape(config.reshape) if config.reshape else None
    requests = [parse_request(text, config.seed) for text in config.maximise]
    metrics = load_metrics() if config.faithfulness else ()
    tried = chain([example], map(lay, image_set.load_others(preprocessing)))
    trial = try_images(model, tried, config.layers + config.activations, config.output, reshape)
    findings = find_out(trial)
    layers = choose_or_offer(trial, config.layers, methods)
    unused = reshape.unused(trial, layers.names) if reshape else ()
    recorded = _recorded(trial, config.activations, layers.names, requests)
    target = _target(config, resolved, trial, image_set, lay)
    maximised = settle(
        requests, trial, explained=layers.names, recorded=recorded, classes=target.record.classes
    )
    head, rows = _head(trial, layers.names) if config.live else (None, None)
    build = _explainers(
        config,
        methods,
        trial,
        layers=layers.names,
        recorded=recorded,
        scorer=target.scorer,
        stage=head.layer if head else "",
    )
    masks = target.scorer.takes_masks
    methods, missing, beyond = _try(partial(build, model), methods, example, masks=masks)
    build = partial(build, methods=methods)
    plan = make_plan(
        recipe,
        image_set,
        target,
        layers=layer_table(trial),
        explained=(*layers.names, *beyond),
        layer_reason=layers.reason,
        recorded=(*recorded, *[FEATURES] * bool(config.encoder)),
        methods=tuple(method.record for method in methods),
        execution=execution_of(example, channels_last, metrics, image_set) | target.execution,
        before=(*resolved.notes, *layers.notes, *unused),
        after=(*findings.notes, *_rounding(device), *map(": ".join, missing.items())),
        layouts=layout_records(trial, (*layers.names, *recorded)),
        findings=findings,
        head=head,
    )
    return Job(
        recipe=recipe,
        plan=plan,
        image_set=image_set,
        module=model,
        explainer=cache(build),
        build_explainer=build,
        methods=methods,
        kernels=collect_kernels(model, config.kernels) if config.kernels else (),
        device=device,
        channels_last=channels_last,
        workers=config.workers or (_ASKING if image_set.remote else default_workers(device)),
        masks=masks,
        dtype=dtype,
        metrics=metrics,
        sanity=_sanity(trial, findings, plan, build) if config.sanity else None,
        missing=missing,
        maximised=maximised,
        reshape=reshape,
        head=rows,
    )


def _sanity(
    trial: Trial, findings: Findings, plan: Plan, build: Callable[..., Explainer]
) -> Sanity:
    """Return what randomises the model, with the seed of the run."""
    if findings.writes_parameters:
        raise ModelError(
            "the model writes to its own parameters when it runs, so that they cannot be "
            "randomised; leave out --sanity"
        )
    layers = plan.layers_of_the_model[-1:]
    explainer = build(trial.module, layers=layers, recorded=(), stage="", encoder=None, fuse=None)
    return Sanity(trial.module, explainer, stages_of(trial), plan)


def _target(
    config: RunConfig,
    resolved: ResolvedModel,
    trial: Trial,
    image_set: ImageSet,
    lay: Callable[[Prepared], torch.Tensor],
) -> PlannedTarget:
    return plan_target(
        config.target,
        trial.module,
        trial.example,
        trial.output,
        resolved.record,
        output=config.output,
        reading=(config.reading, trial.ends),
        load=lambda path: _reference(path, config, resolved.record.preprocessing, lay),
        masks=any(entry.mask for entry in image_set.entries),
    )


def _head(trial: Trial, layers: Sequence[str]) -> tuple[HeadRecord, NDArray[np.float32] | None]:
    """Find the linear head behind the deepest layer; return its rows with their biases, too."""
    if not layers:
        return HeadRecord(why="no layer is explained"), None
    try:
        weight, bias = find_classifier(trial, layers[-1])
    except ClassifierError as error:
        return HeadRecord(why=error.why), None
    biases = weight.new_zeros(len(weight)) if bias is None else bias
    rows = torch.cat([weight, biases[:, None]], 1).float().cpu().numpy()
    return HeadRecord(layers[-1]), rows


def _try(
    build: Callable[..., Explainer],
    methods: Sequence[Method],
    example: torch.Tensor,
    *,
    masks: bool,
) -> tuple[tuple[Method, ...], Mapping[str, str], Iterable[str]]:
    """Explain the first image.

    Returns:
        The methods that have a map somewhere, why others have none, and where beside the layers
        there are maps: ``attention``, ``fused``.

    What no gradient reaches has no map anywhere: it is noted, and not tried for every image.
    """
    unknown = torch.full((1,), -1, device=example.device)
    held = torch.full_like(example[:, 0], 255, dtype=torch.uint8) if masks else None
    # What is missing does not depend on how many passes a method runs.
    first = build(methods=tuple(map(lightest, methods)))(example, unknown, held).to_host()
    given = {method for block in first.maps for method, _ in block.names}
    if first.missing and given:
        methods = [method for method in methods if method.name in given]
    beyond = dict.fromkeys(block.layer for block in first.maps if block.layer in (ATTENTION, FUSED))
    return tuple(methods), first.missing, beyond


def _rounding(device: torch.device) -> tuple[str, ...]:
    """Say that a card computes in fewer bits than float32 has, where it does."""
    if not rounds_to_tf32(device):
        return ()
    return (
        "the card rounds the factors of float32 products to 10 bits (TF32) where torch allows it, "
        "as it does in convolutions by default; NVIDIA_TF32_OVERRIDE=0 in the environment stops it",
    )


def _fetched(recipe: Recipe, watch: Watch) -> tuple[Recipe, Path | None, str]:
    """Fetch the checkpoint and the images that are artifacts of W&B.

    Returns:
        The recipe with their versions in the place of aliases, and where they are.
    """
    config = recipe.config
    told: dict[str, str | Path] = {}
    checkpoint, images = config.checkpoint, config.images
    if is_artifact(checkpoint) and recipe.module is None:
        watch.begin(f"fetching {checkpoint}")
        address, checkpoint = fetch_checkpoint(str(checkpoint))
        told["checkpoint"] = Path(address)
    if is_artifact(images) and recipe.source is None:
        watch.begin(f"fetching {images}")
        told["images"], place = fetch(images)
        images = str(place)
    return replace(recipe, config=config.model_copy(update=told)), checkpoint, images


def _resolve(config: RunConfig, checkpoint: Path | None, module: nn.Module | None) -> ResolvedModel:
    if module is not None:
        classes = read_classes(config.classes) if config.classes else None
        return adopt(module, name=None, preprocessing=config.preprocessing, classes=classes)
    return resolve(
        config.model,
        weights=config.weights,
        checkpoint=checkpoint,
        seed=config.seed,
        preprocessing=config.preprocessing,
        classes=config.classes,
    )


def _explainers(
    config: RunConfig,
    methods: Sequence[Method],
    trial: Trial,
    *,
    layers: tuple[str, ...],
    recorded: tuple[str, ...],
    scorer: Scorer,
    stage: str,
) -> Callable[..., Explainer]:
    """Return what builds an explainer around the model or a replica of it."""
    return partial(
        Explainer,
        methods=methods,
        layers=layers,
        recorded=recorded,
        channels=config.activation_channels,
        target=scorer,
        top_k=config.top_k,
        layouts={name: plane.layout for name, plane in trial.planes.items()},
        reshape=trial.reshape,
        stage=stage,
        encoder=Encoder(config.encoder, trial, layers, recorded) if config.encoder else None,
        seed=config.seed,
        fuse=config.fuse,
        classifiers=classifiers_at(methods, layers, scorer, lambda: trial),
    )


def _reference(
    path: str,
    config: RunConfig,
    preprocessing: Preprocessing,
    lay: Callable[[Prepared], torch.Tensor],
) -> tuple[torch.Tensor, str]:
    """Return a reference image as the model takes it, (1, C, H, W), and the hash of its bytes."""
    _refuse_web(path, config)
    images = open_images(path, limit=1)
    entry = images.entries[0]
    try:
        prepared = images.load(entry, preprocessing)
        return lay(prepared), prepared.key or entry.key
    except ImageError as error:
        raise TargetError(f"the reference image {path!r} cannot be read: {error}") from None


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
