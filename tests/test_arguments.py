"""Settings are arguments in Python, and its errors name them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

import exporter
from exporter.arguments import python_words
from exporter.config import RunConfig, build_config
from exporter.errors import ExporterError
from tests.small import small

BESIDE = {"config", "resume", "overwrite", "add", "watch"}
"""Arguments of ``export`` and ``plan`` that are no settings."""


@pytest.mark.parametrize("function", [exporter.export, exporter.plan])
def test_the_arguments_are_the_settings(function: Callable[..., Any]) -> None:
    parts = inspect.signature(function).parameters
    assert set(parts) - BESIDE == set(RunConfig.model_fields)
    assert list(parts)[:2] == ["model", "images"]
    assert {part.kind for part in list(parts.values())[2:]} == {inspect.Parameter.KEYWORD_ONLY}
    told = inspect.getdoc(function) or ""
    for name, field in RunConfig.model_fields.items():
        assert told.count(f"\n    {name}: ") == 1, f"{name} is not documented"
        assert (field.description or "")[:30]
        if not field.is_required():
            assert (field.description or "").split(";")[0] in told
    assert "settings" not in parts
    assert "repeatable" not in told


def test_their_defaults_are_the_defaults_of_a_run() -> None:
    needed = {"model": "resnet18", "images": "photos", "out": Path("run")}
    parts = inspect.signature(exporter.export).parameters.values()
    given = {part.name: part.default for part in parts if part.name not in needed.keys() | BESIDE}
    assert build_config(None, None, **needed, **given) == build_config(None, None, **needed)


def test_their_types_are_types_that_take_what_is_commonly_given() -> None:
    names = {"Sequence": Sequence, "Mapping": Mapping, "Any": Any, "Literal": Literal, "Path": Path}
    kinds = {
        name: eval(part.annotation, names)
        for name, part in inspect.signature(exporter.export).parameters.items()
        if name in RunConfig.model_fields and name not in ("model", "images")
    }
    assert kinds["maps"] == Sequence[str]
    assert kinds["checkpoint"] == str | Path | None
    assert kinds["batch_size"] == int | Literal["auto"]
    assert kinds["keep"] == int | Literal["all"]
    assert kinds["wandb"] == Literal["offline", "online", "off"]
    assert kinds["preprocessing"] == Mapping[str, Any]
    assert kinds["writer_options"] == Mapping[str, Mapping[str, Any]]


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("go on with --resume", "go on with resume=True"),
        ("or another --out", "or another out="),
        ("--no-single-file", "single_file=False"),
        ("leave out --faithfulness", "leave out faithfulness=True"),
        ("--keep N shows more", "keep=N shows more"),
        ("--maximise 'a:b' names no layer", "maximise=['a:b'] names no layer"),
        ("--maximise auto means", "maximise=['auto'] means"),
        ("with --output: a, b", "with output=: a, b"),
        ("--output names another", "output= names another"),
        ("--checkpoint FILE", "checkpoint=FILE"),
        ("--trust-recipe", "trust_recipe=True"),
        ("exporter work RUN --shards 0/2; then --resume", None),
        ("a -- b, a--b and ---", "a -- b, a--b and ---"),
    ],
)
def test_flags_become_arguments(flags: str, arguments: str | None) -> None:
    told = "exporter work RUN --shards 0/2; then resume=True" if arguments is None else arguments
    assert python_words(flags) == told


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "already holds a run; give resume=True to go on with it or overwrite=True to start"),
        ({"resume": True, "overwrite": True}, "resume=True and overwrite=True contradict each"),
        ({"max_size": "1MB", "resume": True}, "give single_file=True too"),
        ({"maximise": ["nowhere"], "overwrite": True}, r"maximise=\['nowhere'\] names no layer or"),
    ],
)
def test_an_error_in_python_names_arguments(
    sample_run: Path, settings: dict[str, Any], says: str
) -> None:
    images = Path(__file__).parents[1] / "examples" / "photos"
    with pytest.raises(ExporterError, match=says):
        exporter.export(small(), images, out=sample_run, limit=1, **settings)
    with pytest.raises(ExporterError, match=r"there is no run in .* make one with exporter run"):
        exporter.finish(sample_run / "nowhere")
