"""What a profile measures: stages of the chain, and steps of the batches by thread."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import exporter
from exporter import profiling
from exporter.demo import photographs
from exporter.profiling import Profile, timed
from exporter.watch import Watch
from tests.small import small


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> exporter.Run:
    out = tmp_path_factory.mktemp("profiled") / "run"
    settings = {"layers": ["0"], "maps": ["gradcam"], "writers": ["html"], "shard_size": 2}
    return exporter.export(
        small(), photographs(), out=out, limit=6, batch_size=1, workers=2, profile=True,
        preprocessing={"size": 32}, **settings,
    )  # fmt: skip


@pytest.mark.slow
def test_stages_and_steps_are_counted(profiled: exporter.Run) -> None:
    rows = {row.stage: row for row in profiled.profile()}
    assert rows["model and maps"].calls == 6
    assert rows["make rows"].calls == 6
    assert rows["read and decode"].calls == 6
    assert 1 <= rows["read and decode"].threads <= 2
    assert rows["measure and store a shard"].calls == 3
    for stage in (
        "reading the image set",
        "loading the model",
        "trying the model",
        "computing maps",
        "writing html",
    ):
        assert rows[stage].calls == rows[stage].threads == 1
    steps = ("model and maps", "make rows", "measure and store a shard")
    assert all(rows[step].seconds > 0 for step in steps)
    assert rows["model and maps"].seconds < rows["computing maps"].seconds
    whole = rows["computing maps"].seconds / rows["computing maps"].share
    assert rows["make rows"].share == pytest.approx(rows["make rows"].seconds / whole)


def test_the_trace_has_each_step_in_its_thread(profiled: exporter.Run) -> None:
    events = json.loads((profiled.path / "trace.json").read_text())["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    spans = [event for event in events if event["ph"] == "X"]
    decoded = [span for span in spans if span["name"] == "read and decode"]
    assert len(decoded) == 6
    assert {names[span["tid"]].split("_")[0] for span in decoded} == {"decode"}
    stored = next(span for span in spans if span["name"] == "measure and store a shard")
    assert names[stored["tid"]].startswith("store")
    (chain,) = (span for span in spans if span["name"] == "computing maps")
    assert names[chain["tid"]] == "MainThread"
    inside = [span for span in spans if span["name"] == "model and maps"]
    assert all(chain["ts"] <= span["ts"] for span in inside[-1:])
    assert all(span["ts"] + span["dur"] <= chain["ts"] + chain["dur"] for span in inside)


def test_the_trace_is_what_the_format_of_trace_events_asks_for(profiled: exporter.Run) -> None:
    """As Perfetto reads it: of two spans of a thread, one is inside the other or after it."""
    trace = json.loads((profiled.path / "trace.json").read_text(), parse_constant=pytest.fail)
    assert trace.keys() == {"traceEvents", "displayTimeUnit"}
    assert trace["displayTimeUnit"] in ("ms", "ns")
    threads: dict[int, list[tuple[float, float]]] = {}
    for event in trace["traceEvents"]:
        assert type(event["pid"]) is type(event["tid"]) is int
        if event["ph"] == "M":
            assert event["name"] == "thread_name"
            assert event["args"].keys() == {"name"}
            threads[event["tid"]] = []  # a thread is named before it has spans
            continue
        assert event.keys() == {"ph", "name", "pid", "tid", "ts", "dur"}
        assert event["ph"] == "X"
        assert event["name"]
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        threads[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert len(threads) > 1
    for spans in threads.values():
        open_until = [float("inf")]
        for start, stop in sorted(spans, key=lambda span: (span[0], -span[1])):
            while open_until[-1] <= start + 0.001:  # they are whole ns, written in µs
                open_until.pop()
            assert stop <= open_until[-1] + 0.001
            open_until.append(stop)


def test_the_report_shows_the_table(profiled: exporter.Run) -> None:
    page = (profiled.path / "html/index.html").read_text()
    assert "What took the time" in page
    assert "measure and store a shard" in page
    assert not any("profile" in name for name in profiled.settings)


def test_the_table_counts_what_the_trace_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "MOST_SPANS", 3)
    step = timed("step")(lambda: time.sleep(0.001))
    step()  # nobody listens
    with Profile(Watch()) as profile:
        for _ in range(5):
            step()
    step()
    (row,) = profile.table()
    assert (row.calls, row.threads) == (5, 1)
    assert row.seconds >= 0.005
    events = json.loads(profile.trace())["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) == 3


def test_a_step_that_fails_is_measured_and_fails() -> None:
    @timed("step")
    def step() -> None:
        raise ValueError("no")

    with Profile(Watch()) as profile, pytest.raises(ValueError, match="no"):
        step()
    assert [row.stage for row in profile.table()] == ["step"]


def test_a_run_without_a_profile_has_none(tmp_path: Path) -> None:
    run = exporter.export(
        small(), photographs(), out=tmp_path / "run", limit=1, layers=["0"], maps=["gradcam"],
        writers=(), preprocessing={"size": 32},
    )  # fmt: skip
    assert run.profile() == ()
    assert not (run.path / "trace.json").exists()
