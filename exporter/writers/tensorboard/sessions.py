"""What TensorBoard compares runs by: HParams, and the charts of the custom scalars."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from exporter.paths import values_without_folders
from exporter.records import Plan
from exporter.store import Run
from exporter.writers import links
from exporter.writers.scalars import Scalar
from exporter.writers.tensorboard.events import tensor_summary

_SETTINGS = ("precision", "fuse", "limit", "seed")
_MEASURED = ("accuracy", "top-5 accuracy", "calibration error", "mean loss", "agreement")
_CHARTS = {
    "Predictions": ("accuracy", "top-5 accuracy", "calibration error", "mean loss"),
    "Maps": ("agreement", "entropy", "concentration", "flagged maps"),
    "Inside the given boxes and masks": ("pointing", "energy inside", "overlap"),
    "Faithfulness": ("deletion", "insertion", "ROAD"),
    "Sanity": ("sanity rank correlation", "sanity SSIM"),
}


def session_summaries(
    run: Run,
    step: int | None,
    methods: Mapping[str, Sequence[Scalar]],
    created: float,
) -> Iterator[Any]:
    """Yield what HParams reads: the settings, and which scalars they are held against."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    values = _settings(run.plan, step)
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=created)
    infos = []
    for name, value in values.items():
        kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else ""
        setattr(start.hparams[name], f"{kind or 'number'}_value", value)
        data_type = getattr(api_pb2, f"DATA_TYPE_{kind.upper() or 'FLOAT64'}")
        infos.append(api_pb2.HParamInfo(name=name, type=data_type))
    # TensorBoard takes the columns of one run for all: those of the set are there in any case.
    measured = [("", name) for name in _MEASURED]
    measured += [
        (links.safe_name(method), name)
        for wanted in ("agreement", "deletion", "insertion", "ROAD")
        for method, own in methods.items()
        for name, value, _ in own
        if name == wanted and value is not None
    ]
    metrics = [
        api_pb2.MetricInfo(
            name=api_pb2.MetricName(group=group, tag=f"set/{name}"),
            display_name=f"{name} of {group}" if group else name,
        )
        for group, name in measured
    ]
    experiment = api_pb2.Experiment(
        hparam_infos=infos, metric_infos=metrics, time_created_secs=created
    )
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=created)
    for tag, said in (
        (metadata.EXPERIMENT_TAG, {"experiment": experiment}),
        (metadata.SESSION_START_INFO_TAG, {"session_start_info": start}),
        (metadata.SESSION_END_INFO_TAG, {"session_end_info": end}),
    ):
        content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**said))
        yield tensor_summary(tag, content, np.zeros(0, np.float32))


def _settings(plan: Plan, step: int | None) -> dict[str, str | float | bool]:
    """Return what runs are compared by; not the checkpoint where steps tell them apart."""
    told = {
        **{name: plan.settings.get(name) for name in _SETTINGS},
        "model": plan.model.spec,
        "maps": [method.name for method in plan.methods],
        "layers": plan.explained,
        "images": plan.image_set,
        "target": plan.target,
    }
    if step is None:
        told["checkpoint"] = plan.model.checkpoint or plan.model.weights
    shown: dict[str, Any] = values_without_folders(told)
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in shown.items()
        if isinstance(value, str | float | int | list)
    }


def layout_summary(known: Container[str]) -> Any:
    """Return the charts of the custom scalars: a number each, a line for every model and method."""
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    categories = [
        layout_pb2.Category(
            title=title,
            chart=[
                layout_pb2.Chart(
                    title=name,
                    multiline=layout_pb2.MultilineChartContent(tag=[f"^set/{name}$"]),
                )
                for name in names
                if name in known
            ],
        )
        for title, names in _CHARTS.items()
        if any(name in known for name in names)
    ]
    layout = layout_pb2.Layout(category=categories).SerializeToString()
    content = np.array(layout, dtype=object)
    return tensor_summary(metadata.CONFIG_SUMMARY_TAG, metadata.create_summary_metadata(), content)
