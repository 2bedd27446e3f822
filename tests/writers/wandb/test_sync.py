"""Online runs and ``wandb sync``, against a server on this machine."""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.cli import main
from exporter.errors import WriterError
from exporter.render import decode_image
from exporter.store import open_run
from exporter.store.files import RunFiles
from exporter.writers import check, write
from exporter.writers.wandb import WandbOptions, process
from exporter.writers.wandb import sync as wandb_sync
from exporter.writers.wandb.place import verify_offline
from exporter.writers.wandb.process import HERE
from tests.writers.wandb.server import KEY, QUICKLY, Server, serving

NEEDS_HERE = pytest.mark.skipif(HERE is None, reason="the log names the folder it was written in")


@pytest.fixture
def run(sample_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sample run, and a home in which nobody has logged in."""
    copy = tmp_path / "run"
    shutil.copytree(sample_run, copy)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # of the user's key
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(process, "PATIENCE", QUICKLY)
    return copy


@pytest.fixture
def server(run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server that W&B is told of."""
    with serving() as made:
        monkeypatch.setenv("WANDB_BASE_URL", made.address)
        yield made


@pytest.fixture
def signed_in(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)


def options(run: Path, **others: Any) -> WandbOptions:
    kept = tuple(row.id for row in open_run(run).index)
    return WandbOptions(kept=kept[:4], wandb_project="maps", **others)


def told(capfd: pytest.CaptureFixture[str]) -> str:
    """Return what was said on standard error, as one line."""
    return " ".join(capfd.readouterr().err.split())


def shelves(server: Server) -> list[str]:
    """Return the ids of the versions of the artifact of photographs."""
    versions = server.artifacts.items()
    return [made["id"] for (name, _), made in versions if name == "exporter-photographs"]


def arrived(server: Server, run: Path) -> list[dict[str, Any]]:
    """Assert that the table and the pictures it names are on the server; return its rows."""
    tables = {
        name.split("/", 1)[1].removesuffix(".table.json"): json.loads(content)
        for name, content in server.uploads.items()
        if name.endswith(".table.json") and not name.startswith("run/")
    }
    assert {"images", "classes", "confusion", "methods", "channels", "kernels"} <= set(tables)
    names = tables["images"]["columns"]
    rows = [dict(zip(names, cells, strict=True)) for cells in tables["images"]["data"]]
    opened = open_run(run)
    (shelf,) = shelves(server)
    assert len(rows) == 4
    for cells in rows:
        assert cells["photograph"]["path"] == f"photographs/{cells['id']}.jpg"
        assert server.uploads[f"{shelf}/{cells['id']}.jpg"] == opened.image(cells["id"])
    assert len(server.artifacts) >= 8
    assert {told["state"] for told in server.artifacts.values()} == {"COMMITTED"}
    upsert = next(given for name, given in server.operations if name == "UpsertBucket")
    assert (upsert["project"], upsert["displayName"]) == ("maps", "resnet18@none")
    return rows


@pytest.mark.usefixtures("signed_in")
@pytest.mark.slow
def test_online_sends_the_tables(
    run: Path, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path / "home")
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-of-the-lab")
    written = write(open_run(run), "wandb", options(run, wandb="online", wandb_entity="team"))

    arrived(server, run)
    assert written.open.startswith(f"{server.address}/team/maps/runs/")
    assert not any("kept offline" in note for note in written.notes)
    assert list(verify_offline(RunFiles(run))) == []
    assert list((tmp_path / "home").rglob("*")) == []
    assert not any(KEY.encode() in f.read_bytes() for f in run.rglob("*") if f.is_file())
    sent = {**server.uploads, "asked": json.dumps([server.operations, server.streamed]).encode()}
    secrets = {"somebody-of-the-lab", *([str(tmp_path)] if HERE else [])}
    secrets |= {name for name in [socket.gethostname()] if len(name) > 4}  # two letters are in all
    told = {(name, own) for name, said in sent.items() for own in secrets if own.encode() in said}
    assert told == set()


@pytest.mark.slow
@pytest.mark.parametrize("moved", [False, pytest.param(True, marks=NEEDS_HERE)])
def test_an_offline_run_is_sent_by_the_command_that_is_printed_even_when_moved(  # noqa: PLR0917
    run: Path,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    moved: bool,
) -> None:
    written = write(open_run(run), "wandb", options(run, wandb_masks=True))
    assert server.requests == 0
    assert written.open == f"exporter sync {shlex.quote(str(run))}"

    place = run.rename(tmp_path / "elsewhere") if moved else run
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert main(["sync", str(place)]) == 0
    said = capfd.readouterr().out.replace("\n", "")
    assert f"{server.address}/team/maps/runs/" in said
    for cells in arrived(server, place):
        masks = cells["photograph"]["masks"]
        assert masks.keys() == {f"map {name}" for name in ("gradcam", "layercam", "eigencam")}
        for layer in masks.values():
            (sent,) = {own for name, own in server.uploads.items() if name.endswith(layer["path"])}
            assert set(np.unique(decode_image(sent)[..., 0])) == {250, 251, 252, 253}


@pytest.mark.usefixtures("signed_in")
@pytest.mark.slow
def test_a_moved_run_is_sent_by_writing_it_again(run: Path, server: Server, tmp_path: Path) -> None:
    write(open_run(run), "wandb", options(run))
    moved = run.rename(tmp_path / "elsewhere")

    write(open_run(moved), "wandb", options(moved, wandb="online"))
    arrived(server, moved)
    assert list(verify_offline(RunFiles(moved))) == []


@pytest.mark.usefixtures("signed_in")
@pytest.mark.slow
def test_names_that_speak_of_errors_are_no_error(run: Path, server: Server) -> None:
    names = {"wandb_project": "error-analysis", "wandb_name": "ERROR: No API key configured"}
    chosen = options(run, wandb="online").model_copy(update=names)
    written = write(open_run(run), "wandb", chosen)

    assert written.open.startswith(f"{server.address}/team/error-analysis/runs/")
    assert not any("kept offline" in note for note in written.notes)
    assert len(list((run / "wandb").glob("*/*.wandb.synced"))) == 1


@pytest.mark.usefixtures("signed_in")
@pytest.mark.slow
def test_a_sync_that_does_not_finish_is_ended_and_said(
    run: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_sync, "SECONDS", 0.05)
    monkeypatch.setattr(wandb_sync, "BYTES_PER_SECOND", 1e12)
    written = write(open_run(run), "wandb", options(run, wandb="online"))

    assert written.open.startswith("exporter sync ")
    assert any("kept offline" in note and "did not finish" in note for note in written.notes)
    assert list(verify_offline(RunFiles(run))) == []


@pytest.mark.usefixtures("signed_in")
@pytest.mark.slow
def test_what_did_not_arrive_is_said_and_kept(run: Path, server: Server) -> None:
    server.refuse = [503] * 1000
    written = write(open_run(run), "wandb", options(run, wandb="online"))

    assert written.open.startswith("exporter sync ")
    assert any("kept offline" in note and "503" in note for note in written.notes)
    assert list(verify_offline(RunFiles(run))) == []
    assert list((run / "wandb").glob("*/*.sync*")) == []


@pytest.mark.usefixtures("signed_in")
@pytest.mark.slow
def test_a_later_run_uploads_no_photograph_again(run: Path, server: Server) -> None:
    write(open_run(run), "wandb", options(run, wandb="online"))
    photographs = {open_run(run).image(id) for id in options(run).kept}
    assert photographs <= set(server.uploads.values())
    server.uploads.clear()
    later = options(run, wandb="online").model_copy(update={"kept": options(run).kept[1:]})
    written = write(open_run(run), "wandb", later)
    assert written.open.startswith(server.address), written.notes
    assert not photographs & set(server.uploads.values())
    # Its tables say where they are: in a version of the same artifact.
    *_, version = shelves(server)
    number = base64.b64decode(version).hex()
    said = b"".join(server.uploads.values()).decode("utf-8", "replace")
    assert all(f"wandb-artifact://{number}/{id}.jpg" in said for id in later.kept)


@pytest.mark.usefixtures("signed_in")
@pytest.mark.slow
def test_a_run_is_gone_on_with_after_its_own_steps(run: Path, server: Server) -> None:
    written = write(open_run(run), "wandb", options(run, wandb="online", wandb_run="abc123"))
    assert written.open == f"{server.address}/team/maps/runs/abc123", written.notes
    files = [part["files"] for part in server.streamed if part.get("files")]
    (history,) = [part["wandb-history.jsonl"] for part in files if "wandb-history.jsonl" in part]
    assert history["offset"] == 50
    assert "exporter/set/accuracy" in json.loads(history["content"][0])
    upsert = next(given for name, given in server.operations if name == "UpsertBucket")
    assert (upsert["name"], upsert["displayName"], upsert["groupName"]) == ("abc123", None, None)


@pytest.mark.usefixtures("signed_in")
@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 500])
def test_a_server_that_recovers_gets_everything(run: Path, server: Server, status: int) -> None:
    server.refuse = [status]
    written = write(open_run(run), "wandb", options(run, wandb="online"))
    arrived(server, run)
    assert not any("kept offline" in note for note in written.notes)


@pytest.mark.usefixtures("signed_in")
@pytest.mark.slow
def test_what_a_vanishing_server_did_not_get_is_sent_by_a_second_sync(
    run: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    write(open_run(run), "wandb", options(run))
    server.until = 6
    assert main(["sync", str(run)]) == 2
    said = told(capfd)
    assert "error: not all reached W&B" in said
    assert "send it again with exporter sync" in said
    assert list((run / "wandb").glob("*/*.sync*")) == []
    server.until = None
    server.operations.clear()
    assert main(["sync", str(run)]) == 0
    arrived(server, run)
    assert list(check(open_run(run))) == []  # and can be sent once more


@pytest.mark.usefixtures("signed_in")
@pytest.mark.slow
def test_whoever_sends_says_where_to(
    run: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(open_run(run), "wandb", WandbOptions(wandb_project="theirs", wandb_entity="them"))
    monkeypatch.setenv("XDG_STATE_HOME", str(run.parent / "another"))
    where = ["--wandb-project", "ours", "--wandb-entity", "us"]
    assert main(["sync", str(run), *where]) == 0
    named = {
        (given["project"], given["entity"])
        for name, given in server.operations
        if name == "UpsertBucket"
    }
    assert ("ours", "us") in named
    assert not any("theirs" in pair or "them" in pair for pair in named)


@pytest.mark.usefixtures("signed_in")
@pytest.mark.slow
@pytest.mark.parametrize("harm", ["another user", "another log"])
def test_a_log_that_somebody_else_wrote_does_not_say_where_to(
    harm: str,
    run: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write(open_run(run), "wandb", WandbOptions(wandb_project="theirs", wandb_entity="them"))
    if harm == "another user":
        monkeypatch.setenv("XDG_STATE_HOME", str(run.parent / "another"))
    else:
        (log,) = run.glob("wandb/*/*.wandb")
        log.with_name("run-theirs.wandb").write_bytes(log.read_bytes())
    for more in ((), ("--wandb-project", "ours"), ("--wandb-entity", "us")):
        assert main(["sync", str(run), *more]) == 2
        assert "say where to with --wandb-project and --wandb-entity" in told(capfd)
    assert server.requests == 0


@pytest.mark.usefixtures("signed_in")
@pytest.mark.slow
def test_a_sync_sends_nothing_where_a_file_is_missing(
    run: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["sync", str(run)]) == 2
    assert "has no offline W&B run" in told(capfd)
    write(open_run(run), "wandb", options(run))
    next(file for file in (run / "wandb" / "artifacts").rglob("*") if file.is_file()).unlink()
    assert main(["sync", str(run)]) == 2
    said = told(capfd)
    assert "nothing was sent" in said
    assert "exporter render --writer wandb" in said
    assert server.requests == 0


@pytest.mark.slow
def test_no_server_keeps_it_offline(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as gone:
        monkeypatch.setenv("WANDB_BASE_URL", gone.address)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    written = write(open_run(run), "wandb", options(run, wandb="online"))

    assert written.open.startswith("exporter sync ")
    assert any("kept offline" in note and "refused" in note for note in written.notes), "\n".join(
        written.notes
    )
    assert list(verify_offline(RunFiles(run))) == []


def test_without_a_key_a_sync_says_only_what_helps(run: Path, server: Server) -> None:
    write(open_run(run), "wandb", options(run))
    with pytest.raises(WriterError) as caught:
        wandb_sync.sync_run(open_run(run))
    assert str(caught.value) == (
        "W&B has no key to go online with; run wandb login or set WANDB_API_KEY"
    )
    assert list(check(open_run(run))) == []


def test_online_without_a_key_is_one_sentence(run: Path, server: Server) -> None:
    with pytest.raises(WriterError, match="set WANDB_API_KEY, or write it offline: --wandb off"):
        write(open_run(run), "wandb", options(run, wandb="online"))
    assert not (run / "wandb").exists()
    assert not (run / ".wandb.tmp").exists()
