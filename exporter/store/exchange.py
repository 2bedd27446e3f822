"""A run as other libraries take it: Quantus's arrays, data sets of Hugging Face and FiftyOne."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.errors import ExporterError, RunError, one_line, reason
from exporter.store.layout import shard_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporter.records import Plan, Row, StoredMap
    from exporter.store.reader import Run

    Arrays = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]


def quantus_arrays(run: Run, method: str, layer: str, limit: int) -> Arrays:
    """Return inputs, classes and maps as Quantus's metrics are called with them.

    Raises:
        RunError: if no image has such a map, one explains no class, or inputs differ in size.
    """
    # Reading a run needs no OpenCV, which takes a while to import.
    import cv2

    from exporter.render import decode_image

    steps = run.plan.model.preprocessing
    if steps.in_bands:
        raise RunError("Quantus is given inputs, and of bands the run keeps only what is shown")
    mean, std = (np.asarray(values, np.float32) for values in (steps.mean, steps.std))
    relu = any(entry.relu for entry in run.plan.methods if entry.name == method)
    inputs, classes, maps = [], [], []
    whole = (row for row in run.rows(["image", "maps", "error"]) if row.error is None)
    for row in islice(whole, limit):
        stored = run.stored(row, method, layer)
        kind, _, index = stored.target.partition(":")
        if kind != "class" or row.image is None:
            raise RunError(
                f"Quantus is given classes, and the map of {row.path!r} explains {stored.target!r}"
            )
        view = decode_image(row.image)[..., : steps.channels].astype(np.float32) / 255
        values = stored.array()
        values = np.maximum(values, 0) if relu else values
        inputs.append(((view - mean) / std).transpose(2, 0, 1))
        classes.append(int(index))
        maps.append(cv2.resize(values, view.shape[1::-1], interpolation=cv2.INTER_LINEAR)[None])
    if not maps:
        raise RunError(f"the run {str(run.path)!r} holds no image that could be read")
    sizes = sorted({each.shape for each in inputs})
    if len(sizes) > 1:
        raise RunError(
            f"Quantus is given inputs of one size, and those of the run are {sizes[0]} and "
            f"{sizes[1]}; make the run with a crop"
        )
    return np.stack(inputs), np.asarray(classes, np.int64), np.stack(maps).astype(np.float32)


def hugging_face(run: Run) -> Any:
    """Return the run as a `datasets.Dataset`.

    Raises:
        RunError: if datasets is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise RunError(
            "a data set of Hugging Face's needs datasets, which is not installed: pip install "
            "'exporter[datasets]'"
        ) from None
    methods = tuple(method.name for method in run.plan.methods)
    text, number = datasets.Value("string"), datasets.Value("float32")
    features = datasets.Features(
        {
            "id": text,
            "path": text,
            "image": datasets.Image(),
            "label": text,
            "predicted": text,
            "score": number,
            "target": text,
            "error": text,
            **{name: datasets.List(datasets.List(number)) for name in methods},
            **{f"{name} overlay": datasets.Image() for name in methods},
        }
    )
    # What is written once is read again from datasets' cache, unless the run has changed.
    files = map(shard_file, run.shards)
    given = {
        "path": str(run.path.resolve()),
        "methods": methods,
        "state": tuple((file, run.files.modified(file)) for file in files),
    }
    try:
        return datasets.Dataset.from_generator(_examples, features=features, gen_kwargs=given)
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, ExporterError):
            raise error.__cause__ from None
        raise


def _examples(path: str, methods: Sequence[str], state: Any) -> Iterator[dict[str, Any]]:
    """Yield a dictionary per image of a run, as `hugging_face` names what is in it."""
    del state  # part of the cache's key alone
    from exporter.store.reader import open_run

    run = open_run(path)
    for row in run.rows(["image", "label", "predictions", "maps", "error"]):
        yield _example(run, run.plan, row, methods)


def _example(run: Run, plan: Plan, row: Row, methods: Sequence[str]) -> dict[str, Any]:
    from exporter.store.showing import overlaid

    best = row.predictions[0] if row.predictions else None
    there = {kept.method for kept in row.maps}
    maps: dict[str, StoredMap] = {
        name: run.stored(row, name) for name in methods if name in there and row.error is None
    }
    example: dict[str, Any] = {
        "id": row.id,
        "path": row.path,
        "image": None if row.image is None else {"bytes": row.image, "path": None},
        "label": row.label,
        "predicted": best and best.name,
        "score": best and best.score,
        "target": next((stored.target for stored in maps.values()), None),
        "error": row.error,
    }
    for name in methods:
        stored = maps.get(name)
        example[name] = None if stored is None else stored.array().tolist()
        example[f"{name} overlay"] = None if stored is None else overlaid(row, stored, plan)
    return example


def fiftyone_dataset(run: Run, where: str | PathLike[str], name: str | None) -> Any:
    """Write the views into a folder, and return the run as a `fiftyone.Dataset`.

    Raises:
        RunError: if fiftyone is not installed or has no database, the name is taken, or the folder
            cannot be written to.
    """
    try:
        import fiftyone
    except ImportError:
        raise RunError(
            "a data set of FiftyOne's needs fiftyone, which is not installed: pip install fiftyone"
        ) from None
    try:
        dataset = fiftyone.Dataset(name)
    except ValueError as error:
        raise RunError(f"FiftyOne takes no data set of this name: {one_line(error)}") from None
    except (OSError, fiftyone.core.config.FiftyOneConfigError) as error:
        raise RunError(
            f"FiftyOne has no database: {one_line(error)}; start mongod, and give its address in "
            "FIFTYONE_DATABASE_URI"
        ) from None
    folder = Path(where)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        dataset.add_samples(_samples(run, folder.absolute(), fiftyone))
    except BaseException as error:
        dataset.delete()  # the name is free again
        if isinstance(error, OSError):
            raise RunError(f"{str(folder)!r} cannot be written to: {reason(error)}") from None
        raise
    return dataset


def _samples(run: Run, folder: Path, fiftyone: Any) -> Iterator[Any]:
    """Yield a sample per image that could be read."""
    methods = [method.name for method in run.plan.methods]
    for row in run.rows(
        ["image", "label", "predictions", "maps", "error", "crop", "boxes", "predicted_boxes"]
    ):
        if row.image is None:
            continue
        file = folder / f"{row.id}.jpg"
        file.write_bytes(row.image)
        fields: dict[str, Any] = {"run_id": row.id, "path": row.path}
        if row.label is not None:
            fields["ground_truth"] = fiftyone.Classification(label=row.label)
        if row.predictions:
            best = row.predictions[0]
            fields["prediction"] = fiftyone.Classification(label=best.name, confidence=best.score)
        names = [said.name for said in row.predictions]
        for field, boxes, labels in (
            ("ground_truth_boxes", row.boxes, [row.label or ""] * len(row.boxes or ())),
            ("predicted_boxes", row.predicted_boxes, names),
        ):
            if boxes is not None and row.crop is not None:
                drawn = [
                    fiftyone.Detection(label=label, bounding_box=_relative(box, row.crop))
                    for box, label in zip(boxes, labels, strict=False)
                ]
                fields[field] = fiftyone.Detections(detections=drawn)
        there = {kept.method for kept in row.maps}
        for method in (method for method in methods if method in there):
            stored = run.stored(row, method)
            fields[_field(method)] = fiftyone.Heatmap(
                map=stored.array(), range=[stored.lo, stored.hi]
            )
        yield fiftyone.Sample(filepath=str(file), **fields)


def _relative(box: Sequence[float], crop: Sequence[float]) -> list[float]:
    """Return a box of the original as left, top, width and height of the view, 0 to 1.

    >>> _relative((10, 0, 30, 40), (20, 0, 40, 20))
    [0.0, 0.0, 0.5, 1.0]
    """
    left, top, right, bottom = (
        min(max((edge - crop[at % 2]) / (crop[at % 2 + 2] - crop[at % 2]), 0.0), 1.0)
        for at, edge in enumerate(box)
    )
    return [left, top, right - left, bottom - top]


def _field(method: str) -> str:
    """Return a method's name as the name of a field.

    >>> _field("gradcam++"), _field("captum:DeepLift")
    ('gradcam_plus_plus', 'captum_DeepLift')
    """
    return re.sub(r"\W", "_", method.replace("+", "_plus"))
