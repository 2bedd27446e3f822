"""The program that writes a report into W&B, or its specification into a file.

A process of its own, as the writer's is: only the standard library, W&B and wandb-workspaces are
imported here. The first argument names a file of JSON, the job; standard output says what came of
it, in JSON.
"""

from __future__ import annotations

import json
import os
import random
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

JOINED = {"compareMethod": "joining", "joinKeys": ["id"], "outer": True}
"""What W&B's own page keeps of a table of several runs whose rows are joined."""


def main() -> None:
    """Do the job that the first argument names, and print what came of it."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What W&B prints goes to standard error.
    os.dup2(2, 1)
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    told = draft(job) if job["draft"] else send(job)
    print(json.dumps(told), file=answer, flush=True)
    # W&B's own exit hooks may wait for a server that is gone.
    os._exit(0)


def draft(job: dict[str, Any]) -> dict[str, Any]:
    """Return what would be sent; nothing is asked of a server."""
    # W&B looks up the number of a run set's project, so here it is named afterwards.
    model = report_of({**job, "run_set": {}})._to_model()
    spec = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    for block in spec["blocks"]:
        for run_set in block.get("metadata", {}).get("runSets", ()):
            run_set["project"] = {"entityName": job["entity"], "name": job["project"]}
    names = ("entity", "project", "title", "description")
    return {"specification": {name: job[name] for name in names} | {"spec": spec}}


def send(job: dict[str, Any]) -> dict[str, Any]:
    """Save the report, in the place of the one that was sent before."""
    import wandb

    place = (job["entity"], job["project"])
    try:
        api = wandb.Api(timeout=30)
    except wandb.errors.UsageError:
        return {"no key": True}
    except Exception as error:
        return {"refused": f"W&B cannot be reached with this key: {_line(error)}"}
    try:
        if not any(own.name == place[1] for own in api.projects(place[0])):
            return {"no project": True}
        former = next(
            (own for own in api.reports("/".join(place)) if job["mark"] in str(own.description)),
            None,
        )
        report = report_of({**job, "run_set": {"entity": place[0], "project": place[1]}})
        if former is not None:
            report.id = former.id
            # One that somebody renamed keeps its name.
            report.title = report.title if job["titled"] else former.display_name
        report.save()
    except Exception as error:
        return {"refused": f"W&B did not take the report: {_line(error)}"}
    told: dict[str, Any] = {"url": report.url, "updated": former is not None}
    if job["share"]:
        try:
            told["share"] = report.enable_share_link()
        except Exception as error:
            told["unshared"] = _line(error)
    return told


def _line(error: BaseException) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 300 else f"{said[:300]}…"


def report_of(job: dict[str, Any]) -> Any:
    """Return a job as a report of wandb-workspaces; the same job gives the same ids within it."""
    wr: Any = import_module("wandb_workspaces.reports.v2")
    random.seed(job["mark"])
    return wr.Report(
        entity=job["entity"],
        project=job["project"],
        title=job["title"],
        description=job["description"],
        blocks=[_block(wr, block, job["run_set"]) for block in job["blocks"]],
        width="fluid",
    )


def _block(wr: Any, block: dict[str, Any], run_set: dict[str, str]) -> Any:
    if "heading" in block:
        return wr.H2(block["heading"])
    if "text" in block:
        return wr.P(_spans(wr, block["text"]))
    if "list" in block:
        return wr.UnorderedList([_spans(wr, item) for item in block["list"]])
    if "markdown" in block:
        return wr.MarkdownBlock(block["markdown"])
    if "code" in block:
        return wr.CodeBlock(block["code"], language="markdown")
    # Among runs, W&B's ID is what it calls name.
    listed = ", ".join(repr(id) for id in block["runs"])
    runs = wr.Runset(name=block["name"], filters=f"ID in [{listed}]", **run_set)
    return wr.PanelGrid(runsets=[runs], panels=[_panel(wr, told) for told in block["panels"]])


def _spans(wr: Any, spans: list[Any]) -> list[Any]:
    return [
        span if isinstance(span, str) else wr.Link(text=span["text"], url=span["url"])
        for span in spans
    ]


def _panel(wr: Any, told: dict[str, Any]) -> Any:
    layout = wr.Layout(w=told["width"], h=told["height"])
    kind = told["panel"]
    if kind == "table":
        table = _joined(wr) if told["joined"] else wr.WeavePanelSummaryTable
        return table(table_name=told["name"], layout=layout)
    if kind == "media":
        return wr.MediaBrowser(
            media_keys=told["keys"], grid_x_axis="step", grid_y_axis="run", layout=layout
        )
    if kind == "bars":
        return wr.BarPlot(title=told["title"], metrics=told["metrics"], layout=layout)
    if kind == "lines":
        return wr.LinePlot(x=told["x"], y=told["y"], layout=layout)
    if kind == "points":
        x, y = wr.SummaryMetric(told["x"]), wr.SummaryMetric(told["y"])
        return wr.ScatterPlot(title=told["y"], x=x, y=y, layout=layout)
    fields = {"Actual": "label name", "Predicted": "predicted name", "nPredictions": "images"}
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": told["table"]}},
        chart_name="wandb/confusion_matrix/v1",
        chart_fields=fields,
        layout=layout,
    )


def _joined(wr: Any) -> Any:
    """Return W&B's table of a run set with its rows joined: the library has no name for it."""

    class Joined(wr.WeavePanelSummaryTable):  # type: ignore[misc]
        def _to_model(self) -> Any:
            model = super()._to_model()
            model.config["panel2Config"]["panelConfig"] = JOINED
            return model

    return Joined


if __name__ == "__main__":
    main()
