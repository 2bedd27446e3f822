"""The W&B report: what a server on this machine is sent is the report that was meant."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import exporter
from exporter.cli import main
from exporter.errors import ConfigError, RunError
from exporter.publish import reporting, wandb_blocks, wandb_program
from exporter.publish.choosing import opened
from exporter.publish.subject import Subject
from exporter.writers.html.findings import findings
from exporter.writers.reading import set_numbers
from exporter.writers.wandb import WandbOptions, process
from exporter.writers.wandb.media import media_names
from exporter.writers.wandb.rows import metric_values
from tests.writers.wandb.server import KEY, QUICKLY, Server, serving

pytest.importorskip("wandb_workspaces")


class Reports(Server):
    """A server with one project, which keeps the reports that it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.views: dict[str, dict[str, Any]] = {}
        self.shares = True

    def answer(  # noqa: PLR0911
        self, operation: str, given: dict[str, Any]
    ) -> dict[str, Any]:
        own = given.get("entityName") or given.get("entity")
        if operation == "GetProjects":
            node = {"__typename": "Project", "id": "p", "name": "maps", "entityName": own}
            node |= {"createdAt": "2026-01-01T00:00:00Z", "isBenchmark": False, "user": None}
            edges = [{"cursor": "c", "node": node}] if own == "team" else []
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"models": {"edges": edges, "pageInfo": page}}
        if operation == "GetDefaultEntity":
            return {"viewer": {"id": "v", "entity": "team"}}
        if operation == "ProjectViews":
            edges = [{"cursor": id, "node": view} for id, view in self.views.items()]
            page = {"endCursor": None, "hasNextPage": False}
            return {"project": {"allViews": {"edges": edges, "pageInfo": page}}}
        if operation == "ProjectInternalId":
            return {"project": {"id": "p", "internalId": "7"}}
        if operation == "upsertView":
            id = given["id"] or f"view{len(self.views)}"
            project = {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}
            names = ("name", "displayName", "description", "spec")
            view = {"id": id, "type": "runs", "project": project, "updatedAt": None, "user": None}
            self.views[id] = view | {name: given[name] for name in names}
            return {"upsertView": {"view": self.views[id], "inserted": not given["id"]}}
        if operation == "ViewAccessTokens":
            return {"view": {"accessTokens": []}}
        if operation == "createAccessToken":
            if not self.shares:
                return {"createAccessToken": None}
            return {"createAccessToken": {"accessToken": {"token": "secret", "type": "PUBLIC"}}}
        return super().answer(operation, given)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reports]:
    """The server, a key for it, and a home in which nobody has logged in."""
    for name in [
        name for name in os.environ if name.startswith("WANDB_") or "proxy" in name.lower()
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(process, "PATIENCE", QUICKLY)
    with serving(Reports) as reports:
        monkeypatch.setenv("WANDB_BASE_URL", reports.address)
        yield reports


@pytest.fixture(scope="module")
def run(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample run, as if it had been written for W&B."""
    place = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(sample_run, place, ignore=shutil.ignore_patterns("wandb", "html"))
    (place / "wandb" / "offline-run-20260101_000000-abc12345").mkdir(parents=True)
    return place


@pytest.fixture(scope="module")
def compared(checkpoints: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The comparison of three checkpoints, as if all of it had been written for W&B."""
    place = tmp_path_factory.mktemp("compared")
    for number, path in enumerate(checkpoints):
        copy = shutil.copytree(path, place / path.name)
        (copy / "wandb" / f"offline-run-20260101_000000-run{number}").mkdir(parents=True)
    exporter.compare(*(place / path.name for path in checkpoints), out=place / "CMP", writers=())
    (place / "CMP" / "wandb" / "offline-run-20260101_000000-cmp").mkdir(parents=True)
    return place / "CMP"


def said(blocks: list[dict[str, Any]]) -> str:
    """Return all texts of a specification."""

    def texts(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            yield from ([part["text"]] if isinstance(part.get("text"), str) else ())
            for value in part.values():
                yield from texts(value)
        elif isinstance(part, list):
            for value in part:
                yield from texts(value)

    return "\n".join(texts(blocks))


def grids(spec: dict[str, Any]) -> list[tuple[list[str], list[dict[str, Any]]]]:
    """Return the runs and the panels of each grid."""
    held = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    return [
        (
            grid["runSets"][0]["filters"]["filters"][0]["value"],
            grid["panelBankSectionConfig"]["panels"],
        )
        for grid in held
    ]


def tables(panels: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the tables among panels, by their names."""
    told = [own["config"]["panel2Config"] for own in panels if own["viewType"] == "Weave"]
    return {own["exp"]["fromOp"]["inputs"]["key"]["val"]: own for own in told}


@pytest.mark.slow
def test_what_arrives_is_the_report_and_a_second_call_replaces_it(
    run: Path, server: Reports, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["report", "wandb", str(run), "--entity", "team", "--project", "maps"]
    command += ["--report-url", "https://maps.example/r/"]
    draft = tmp_path / "draft.json"
    assert main([*command, "--draft", str(draft)]) == 0
    assert server.requests == 0

    assert main([*command, "--share"]) == 0
    address = f"{server.address}/team/maps/reports/What-resnet18-looks-at--view0"
    out = capsys.readouterr().out.replace("\n", "")
    assert f"written: {address}for all" in out
    assert f"{address}?accessToken=secret" in out
    (view,) = server.views.values()
    drafted = json.loads(draft.read_text("utf-8"))
    sent = json.loads(view["spec"])
    for block in sent["blocks"]:
        for run_set in block.get("metadata", {}).get("runSets", ()):
            # The number that the server gave, which a draft has not asked for.
            assert run_set["project"].pop("id") == "7"
    assert sent == drafted["spec"]
    assert (view["displayName"], view["description"]) == (drafted["title"], drafted["description"])

    view["displayName"] = "Renamed by somebody"
    server.shares = False
    assert main([*command, "--share"]) == 0
    out = capsys.readouterr().out.replace("\n", " ")
    assert "replaced: " in out
    assert "W&B makes no link for those without an account" in out
    (again,) = server.views.values()
    assert again["displayName"] == "Renamed by somebody"
    assert again["spec"] == view["spec"]


def drafted(subject: Subject) -> dict[str, Any]:
    """Return the specification of a report, with W&B's library in this process."""
    names = dict.fromkeys(("entity", "project", "title", "description", "mark"), "team")
    told = wandb_program.draft({**names, "blocks": wandb_blocks.blocks(subject)})
    spec: dict[str, Any] = told["specification"]["spec"]
    return spec


@pytest.mark.slow
def test_the_report_of_a_run_shows_what_its_wandb_run_holds(run: Path) -> None:
    runs, _ = opened([run])
    subject = Subject(tuple(runs), report_url="https://maps.example/r/", command="exporter report")
    spec = drafted(subject)
    text, opened_run = said(spec["blocks"]), runs[0].run
    for finding in findings(opened_run):
        assert f"{finding.about}: {finding.text}" in text
    for method in opened_run.plan.methods:
        assert f"{method.title}. Shows: {method.shows} Misleads: {method.caveats}" in text
    assert opened_run.files.sha256("plan.json")[:12] in text
    assert all(ids == ["abc12345"] for ids, _ in grids(spec))
    panels = [panel for _, own in grids(spec) for panel in own]
    assert set(tables(panels)) == {"images", "methods", "classes"}
    assert "panelConfig" not in tables(panels)["images"]
    (media,) = [own["config"] for own in panels if own["viewType"] == "Media Browser"]
    assert media["mediaKeys"] == list(media_names(opened_run))
    assert media["gridSettings"] == {"xAxis": "step", "yAxis": "run"}
    (confusion,) = [own["config"] for own in panels if own["viewType"] == "Vega2"]
    assert confusion["panelDefId"] == "wandb/confusion_matrix/v1"
    bars = {n for own in panels if own["viewType"] == "Bar Chart" for n in own["config"]["metrics"]}
    logged = metric_values(opened_run, WandbOptions(), set_numbers(opened_run))
    assert {"set/accuracy", "gradcam/agreement"} <= bars <= set(logged)
    addresses = re.findall(r'"url": "([^"]+)"', json.dumps(spec))
    assert "https://maps.example/r/images.html#outcome=wrong" in addresses


@pytest.mark.slow
def test_the_report_of_a_comparison_joins_its_runs(compared: Path) -> None:
    runs, comparison = opened([compared])
    assert comparison is not None
    spec = drafted(Subject(tuple(runs), comparison))
    text = said(spec["blocks"])
    assert all(f"{own.about}: {own.text}" in text for own in comparison.findings)
    by_runs = {",".join(ids): tables(panels) for ids, panels in grids(spec) if tables(panels)}
    assert {"images", "pictures", "flips"} == set(by_runs["cmp"])
    joined = [
        tables(own)["images"]
        for ids, own in grids(spec)
        if "images" in tables(own) and len(ids) == 3
    ]
    assert [own["panelConfig"] for own in joined] == [
        {"compareMethod": "joining", "joinKeys": ["id"], "outer": True}
    ]
    assert not [p for _, own in grids(spec) for p in own if p["viewType"] == "Scatter Plot"]
    for named, step in zip(runs, (1, 3, 5), strict=True):
        plan = named.run.plan
        named.run.plan = replace(plan, model=replace(plan.model, step=step))
    spec = drafted(Subject(tuple(runs), comparison))
    points = [p["config"] for _, own in grids(spec) for p in own if p["viewType"] == "Scatter Plot"]
    assert {own["xAxis"] for own in points} == {"summary:step"}
    assert {"summary:set/accuracy", "summary:gradcam/agreement"} <= {own["yAxis"] for own in points}


def test_a_run_that_went_on_is_shown_by_its_prefix_and_lines(run: Path) -> None:
    runs, _ = opened([run])
    told = [b for b in wandb_blocks.blocks(Subject(tuple(runs), wandb_run="abc")) if "panels" in b]
    assert all(block["runs"] == ["abc"] for block in told)
    lines = [p for block in told for p in block["panels"] if p["panel"] == "lines"]
    assert [own["x"] for own in lines] == ["exporter/step"] * 2
    assert "exporter/set/accuracy" in lines[0]["y"]


def test_the_same_runs_have_the_same_mark_and_others_another(run: Path, compared: Path) -> None:
    def mark(*given: Path) -> str:
        runs, comparison = opened(given)
        return Subject(tuple(runs), comparison).mark

    first, second = compared.parent / "a", compared.parent / "b"
    assert mark(first, second) == mark(second, first)
    assert len({mark(run), mark(first), mark(first, second), mark(compared)}) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("project", "has no project 'team/others' that you can see"),
        ("key", "has no key to go online with; run wandb login or set WANDB_API_KEY"),
        ("network", "cannot be reached"),
    ],
)
def test_what_the_server_refuses_is_one_sentence(  # noqa: PLR0917
    run: Path,
    server: Reports,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: str,
    sentence: str,
) -> None:
    if change == "key":
        monkeypatch.delenv("WANDB_API_KEY")
    if change == "network":
        with Reports() as gone:
            monkeypatch.setenv("WANDB_BASE_URL", gone.address)
    project = "others" if change == "project" else "maps"
    assert main(["report", "wandb", str(run), "--entity", "team", "--project", project]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "error: W&B " in said
    assert sentence in said
    assert server.views == {}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"entity": "a/b"}, "'a/b' is not a valid entity"),
        ({"report_url": "file:///r"}, "'file:///r' is not a web address"),
        ({"wandb_run": "a b"}, "'a b' is not the id of a W&B run"),
    ],
)
def test_a_malformed_name_is_refused(run: Path, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        exporter.wandb_report(run, **({"entity": "team", "project": "maps"} | arguments))


def test_a_run_that_was_not_written_for_wandb_is_refused(checkpoints: list[Path]) -> None:
    with pytest.raises(RunError, match="has no W&B run that a report could show"):
        exporter.wandb_report(checkpoints[0], entity="team", project="maps")


def test_without_the_extra_the_sentence_says_how_to_get_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'exporter\[reports\]'"):
        exporter.wandb_report(run, entity="team", project="maps")
