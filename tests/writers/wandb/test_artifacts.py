"""Artifacts of W&B: taken by their address from a server on this machine, and noted as inputs."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.cli import main
from exporter.demo import photographs
from exporter.errors import ConfigError
from exporter.run import export
from exporter.store import open_run
from exporter.writers.wandb import artifacts, process
from exporter.writers.wandb.artifacts import artifacts_used, fetch, fetch_checkpoint
from tests.hostile.mutations import forged
from tests.small import small
from tests.writers.wandb.server import KEY, QUICKLY, Handler, Server, serving

ROOT = Path(__file__).resolve().parents[3]


def node_of(name: str, kind: str = "model") -> dict[str, Any]:
    """Return what the server says of an artifact, ``NAME:vN``."""
    collection, _, version = name.partition(":v")
    project = {"id": "p", "internalId": "p", "name": "nets", "entity": {"name": "team"}}
    holder = {"__typename": "ArtifactSequence", "name": collection, "project": project}
    number = base64.b64encode(f"Artifact:{name}".encode()).decode()
    return {
        **{"__typename": "Artifact", "id": number, "artifactSequence": holder},
        **{"versionIndex": int(version), "artifactType": {"name": kind}, "tags": []},
        **dict.fromkeys(("description", "metadata", "commitHash", "historyStep")),
        **{"ttlDurationSeconds": -2, "ttlIsInherited": True, "state": "COMMITTED"},
        **{"size": 1, "digest": "d", "digestAlgorithm": "MANIFEST_MD5", "fileCount": 1},
        **dict.fromkeys(("createdAt", "updatedAt"), "2026-01-01T00:00:00Z"),
        "aliases": [],
    }


class Shelf(Server):
    """A server with artifacts, their files by ``NAME:VERSION``; ``latest`` is the last of them."""

    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = Giving
        self.shelf: dict[str, dict[str, bytes]] = {}

    def version(self, name: str) -> str:
        collection, _, alias = name.partition(":")
        own = [told for told in self.shelf if told.partition(":")[0] == collection]
        return own[-1] if alias == "latest" and own else name

    def answer(  # noqa: PLR0911
        self, operation: str, given: dict[str, Any]
    ) -> dict[str, Any]:
        if operation == "ArtifactMembershipByName":
            name = self.version(given["name"])
            if name not in self.shelf:
                return {"project": {"artifactCollectionMembership": None}}
            artifact = node_of(name)
            member = {"__typename": "ArtifactCollectionMembership", "id": "m", "aliases": []}
            member |= {name: artifact[name] for name in ("versionIndex", "createdAt")}
            member |= {"artifactCollection": artifact["artifactSequence"], "artifact": artifact}
            return {"project": {"artifactCollectionMembership": member}}
        if operation == "FetchArtifactManifest":
            name = base64.b64decode(given["id"]).decode().removeprefix("Artifact:")
            url = {"directUrl": f"{self.address}/manifest/{name}"}
            return {"artifact": {"currentManifest": {"file": url}}}
        if operation == "GetArtifactMembershipFileUrls":
            name = f"{given['collection']}:{given['alias']}"
            base = f"{self.address}/files/{name}"
            nodes = [
                {"__typename": "File", "name": file, "directUrl": f"{base}/{file}"}
                for file in self.shelf[name]
            ]
            page = {"__typename": "PageInfo", "endCursor": "", "hasNextPage": False}
            files = {"pageInfo": page, "edges": [{"node": node} for node in nodes]}
            member = {"artifactMembership": {"files": files}}
            collection = {"__typename": "ArtifactSequence", **member}
            return {"project": {"artifactCollection": collection}}
        if operation == "Run":
            times = dict.fromkeys(("createdAt", "heartbeatAt"), "2026-01-01T00:00:00Z")
            named = {"id": "r", "name": given["name"], "displayName": "", "sweepName": None}
            told = {"state": "finished", "projectId": "1", "tags": [], "readOnly": False}
            rest = dict.fromkeys(("group", "jobType", "commit", "description", "notes"))
            who = {"user": {"name": "v", "username": "v"}, "historyLineCount": 0}
            run = {**named, **told, **rest, **times, **who}
            return {"project": {"run": run}}
        if operation == "ArtifactType":  # of an artifact that may be there already
            return {"project": {"artifact": None}}
        if operation == "UseArtifact":
            return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}
        return super().answer(operation, given)

    @property
    def used(self) -> list[tuple[str, str]]:
        """(run, artifact) of each use that was noted."""
        return [
            (given["runName"], base64.b64decode(given["artifactID"]).decode())
            for operation, given in self.operations
            if operation == "UseArtifact"
        ]


class Giving(Handler):
    server: Shelf

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        kind, _, rest = self.path.lstrip("/").partition("/")
        name, _, file = rest.partition("/")
        files = self.server.shelf.get(name, {})
        if kind == "manifest":
            contents = {
                own: {"digest": base64.b64encode(hashlib.md5(held).digest()).decode(), "size": 1}
                for own, held in files.items()
            }
            config = {"storageLayout": "V2"}
            told = {"version": 1, "storagePolicy": "wandb-storage-policy-v1", "contents": contents}
            self.reply(told | {"storagePolicyConfig": config})
        elif kind == "files" and file in files:
            self.send_response(200)
            self.send_header("Content-Length", str(len(files[file])))
            self.end_headers()
            self.wfile.write(files[file])
        else:
            super().do_GET()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """The server, a key for it, and a home in which nothing was fetched."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(process, "PATIENCE", QUICKLY)
    with serving(Shelf) as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", server.address)
        yield server


@pytest.mark.slow
def test_an_artifact_is_fetched_once_and_pinned_to_its_version(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.shelf = {"net:v2": {"old.pt": b"old"}, "net:v3": {"net.pt": b"new", "notes.txt": b"n"}}
    address, place = fetch_checkpoint("wandb:team/nets/net:latest")
    assert address == "wandb:team/nets/net:v3"
    assert place.read_bytes() == b"new"
    assert place.is_relative_to(tmp_path / ".cache" / "exporter")
    asked = shelf.requests
    for where in (address, f"{address}#notes.txt"):
        told, place = fetch(where)
        assert told == where
        assert place.exists()
    assert shelf.requests == asked
    with pytest.raises(ConfigError, match=r"has no 'other\.pt'; it has net\.pt, notes\.txt"):
        fetch(f"{address}#other.pt")
    with pytest.raises(ConfigError, match=r"has no '\.\./net:v2'"):
        fetch(f"{address}#../net:v2")
    with pytest.raises(ConfigError, match=r"'wandb:team/nets/other:v1' cannot be fetched: .*other"):
        fetch("wandb:team/nets/other:v1")
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(ConfigError, match=r"cannot be fetched: W&B has no key"):
        fetch("wandb:team/nets/other:v1")


def test_what_is_no_address_or_holds_several_checkpoints_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in ("wandb:", "wandb:net", "wandb:team/nets/net", "wandb:team/nets/../net:v1#"):
        with pytest.raises(ConfigError, match="is not the address of a W&B artifact; give wandb:E"):
            fetch(wrong)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "exporter/artifacts/team/nets/net:v1"
    folder.mkdir(parents=True)
    with pytest.raises(ConfigError, match="does not hold one checkpoint but no file"):
        fetch_checkpoint("wandb:team/nets/net:v1")
    for name in ("a.pt", "b.pt", "c.txt"):
        (folder / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"but a\.pt, b\.pt; say which with #FILE"):
        fetch_checkpoint("wandb:team/nets/net:v1")
    assert fetch_checkpoint("wandb:team/nets/net:v1#b.pt")[1] == folder / "b.pt"


@pytest.mark.slow
def test_without_a_network_it_is_one_sentence(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with Server() as gone:
        monkeypatch.setenv("WANDB_BASE_URL", gone.address)
    told = ["--model", "demo", "--images", "wandb:team/sets/val:latest"]
    assert main(["run", *told, "--out", str(tmp_path / "run")]) == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "error: the W&B artifact 'wandb:team/sets/val:latest' cannot be fetched: " in said
    assert "refused" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_of_artifacts_says_so_and_its_sync_notes_them(
    shelf: Shelf, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "epoch.pt"
    torch.save({"state_dict": small().state_dict(), "epoch": 7}, file)
    shelf.shelf["net:v3"] = {"epoch.pt": file.read_bytes()}
    chosen = sorted(photographs().glob("*.jpg"))[:2]
    shelf.shelf["val:v1"] = {own.name: own.read_bytes() for own in chosen}
    run = export(
        "tests.small:small",
        "wandb:team/nets/val:latest",
        checkpoint="wandb:team/nets/net:latest",
        maps=["gradcam"],
        out=tmp_path / "run",
        writers=["html", "wandb"],
        wandb_project="maps",
        wandb_artifacts=True,
        single_file=True,
    )
    settings = run.plan.settings
    assert settings["checkpoint"] == "wandb:team/nets/net:v3"
    assert settings["images"] == "wandb:team/nets/val:v1"
    assert (run.plan.model.checkpoint, run.plan.model.step) == ("epoch.pt", 7)
    assert [entry.path for entry in run.plan.images] == [own.name for own in chosen]
    assert str(tmp_path) not in json.dumps(settings)

    assert main(["sync", str(run.path)]) == 0, capfd.readouterr().err
    (name,) = {given["name"] for told, given in shelf.operations if told == "UpsertBucket"}
    assert shelf.used == [(name, "Artifact:net:v3"), (name, "Artifact:val:v1")]
    logged = {collection: made["state"] for (collection, _), made in shelf.artifacts.items()}
    model = run.plan.model.name
    assert logged[f"run-folder-{model}"] == logged[f"report-{model}"] == "COMMITTED"
    sent = {file.partition("/")[2]: content for file, content in shelf.uploads.items()}
    for own in ("plan.json", "run.json", "shards/00000.parquet", "html/report.html"):
        assert sent[own] == (run.path / own).read_bytes()
    assert not any(own.startswith(("wandb/", "recipe")) for own in sent)
    # The folder that arrived is the run, whole; what W&B has of a table's pictures comes once.
    again, arrived = tmp_path / "again", set(shelf.uploads.values())
    for file in run.path.rglob("*"):
        own = file.relative_to(run.path)
        if (
            file.is_file()
            and own.parts[0] not in {"html", "wandb"}
            and file.read_bytes() in arrived
        ):
            copy = again / own
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    assert [row.id for row in open_run(again).rows()] == [row.id for row in run.rows()]
    status = main(["check", str(again)])
    assert status == 0, capfd.readouterr().out


LIVE = """
import json, sys
import wandb
from exporter.store import open_run
from exporter.writers import write
from exporter.writers.wandb import WandbOptions

with wandb.init(project="maps", entity="team", dir=sys.argv[2], id="mine") as mine:
    mine.log({"loss": 1.0})
    run = open_run(sys.argv[1])
    kept = tuple(entry.id for entry in run.plan.images[:2])
    written = write(run, "wandb", WandbOptions(kept=kept, step=7, wandb_run=mine))
    mine.log({"loss": 0.5})
print(json.dumps([written.open, *written.notes]))
"""


@pytest.mark.slow
def test_a_live_run_of_the_callers_notes_them_at_once_and_goes_on(
    shelf: Shelf, sample_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(sample_run, tmp_path / "run")
    taken = {"checkpoint": "wandb:team/nets/net:v3", "images": "wandb:team/nets/gone:v1"}
    forged(run, "plan.json", lambda plan: plan["settings"].update(taken))
    shelf.shelf = {"net:v3": {"net.pt": b"new"}}
    patience = {f"WANDB__GRAPHQL_{name}": value for name, value in QUICKLY.items()}
    said = subprocess.run(
        [sys.executable, "-c", LIVE, str(run), str(tmp_path)],
        env=os.environ | patience | {"PYTHONPATH": str(ROOT), "WANDB_SILENT": "true"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout.splitlines()[-1])
    assert told[0] == f"{shelf.address}/team/maps/runs/mine"
    assert shelf.used == [("mine", "Artifact:net:v3")]
    assert told[-1].startswith("the W&B run does not name team/nets/gone:v1 as its input (")
    lines = [
        json.loads(line)
        for part in shelf.streamed
        for line in (part.get("files") or {}).get("wandb-history.jsonl", {}).get("content", ())
    ]
    assert [line["loss"] for line in lines if "loss" in line] == [1.0, 0.5]
    (own,) = [line for line in lines if "exporter/set/accuracy" in line]
    assert own["exporter/step"] == 7
    opened = open_run(run)
    arrived = set(shelf.uploads.values())
    assert {opened.image(entry.id) for entry in opened.plan.images[:2]} <= arrived
    assert {made["state"] for made in shelf.artifacts.values()} == {"COMMITTED"}


def test_only_addresses_are_inputs() -> None:
    told = {"checkpoint": "net.pt", "images": "photos"}
    assert artifacts_used(told) == ()
    both = {"checkpoint": "wandb:a/b/net:v1#net.pt", "images": "wandb:a/b/val:v2"}
    assert artifacts_used(both) == ("a/b/net:v1", "a/b/val:v2")
    assert artifacts.is_artifact(Path("wandb:a/b/net:v1"))
    assert not artifacts.is_artifact(["wandb:a"])
