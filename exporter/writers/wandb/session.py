"""The program that talks to W&B: it logs one job, a file of JSON, as one offline run.

The writer runs this file as a process of its own, so that the caller's environment, W&B run,
threads and signals are left alone. Only the standard library, Pillow and W&B are imported here.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Literal

_Policy = Literal["mutable", "immutable"]

# A version that lacks one of them has nothing to switch off there.
_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("program_relpath", "program_abspath", "username", "email", "docker"), ""),
    **dict.fromkeys(("silent", "disable_git", "disable_code", "disable_job_creation"), True),
    **dict.fromkeys(("x_disable_meta", "x_disable_stats", "x_disable_machine_info"), True),
    **dict.fromkeys(("save_code", "symlink", "x_save_requirements"), False),
    "host": "not-recorded",
    "program": "exporter",
    "x_executable": "python",
    "console": "off",
}


def main() -> None:
    """Log the job that the first argument names; standard output says why, if it fails."""
    # What W&B prints goes to standard error, so that the reason is alone on standard output.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        record(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=answer, flush=True)
        # W&B's own exit hooks would wait for a run that failed half-way.
        os._exit(1)


def record(job: dict[str, Any]) -> None:
    """Log a job into one offline run.

    Args:
        job: ``init``, arguments of ``wandb.init``; ``tables``, each with its ``name``, its
            ``columns`` as (name, kind), its ``rows`` and the ``chart`` of it; ``photographs``,
            pictures by the id of their image; ``metrics``, numbers over ``step``; ``media``,
            pictures by name; ``summary``, values by name; the ``prefix`` of all these names;
            ``artifacts``, each with its ``name``, its ``type`` and its ``files`` by their names in
            it; ``day``, the seconds since 1970 at which W&B is to believe that it begins.
    """
    if job.get("day") is not None:
        _begin_at(job["day"])
    # The temporary files of this process only: W&B's service puts a socket in TMPDIR, and the path
    # of a socket may not be longer than about 100 bytes.
    tempfile.tempdir = os.environ["EXPORTER_WANDB_TEMP"]
    # W&B takes pandas where it finds it, for a third of a second, and nothing here is a data frame.
    sys.modules["pandas"] = None  # type: ignore[assignment]
    _read_heads()
    import wandb

    settings = {name: _SETTINGS[name] for name in _SETTINGS if name in wandb.Settings.model_fields}
    run = wandb.init(mode="offline", settings=wandb.Settings(**settings), **job["init"])
    # The path by which W&B finds its folder: what stays there is logged where it lies.
    log(run, job, Path(os.environ["WANDB_DATA_DIR"]), policy="immutable")
    run.finish()
    wandb.teardown()


def log(run: Any, job: dict[str, Any], folder: Path, policy: _Policy = "mutable") -> None:
    """Log a job into a run, which stays open.

    Args:
        run: a W&B run.
        job: see `record`.
        folder: where its pictures are.
        policy: W&B's word for whether it copies those of the images, or finds them there later.
    """
    import wandb

    prefix = job["prefix"]
    pictures: dict[str, Any] = {}  # a picture that several rows have is read once
    shelf = _photographs(wandb, run, job["photographs"], folder, pictures, policy=policy)
    photographs = {
        path: f"photographs/{_file(id, path)}" for id, path in job["photographs"].items()
    }
    logged: dict[str, Any] = {}
    for table in job["tables"]:
        name, chart = prefix + table["name"], table["chart"]
        logged[name] = _table(wandb, table, folder, pictures)
        if shelf is not None:
            names = {
                str(folder / path): photographs.get(path, f"media/images/{Path(path).name}")
                for path in _pictures_in(table)
            }
            _refer(run, logged[name], name, shelf, names, policy=policy)
        if chart is not None:
            x, y, title = chart
            plain = _table(wandb, table, folder, pictures)
            logged[f"{name} chart"] = wandb.plot.line(plain, x, y, title=title)
    for name, cell in job["media"].items():
        logged[prefix + name] = _picture(wandb, cell, folder, {})
    # Never ``step=``: that is the run's own count.
    run.define_metric(f"{prefix}step")
    run.define_metric(f"{prefix}*", step_metric=f"{prefix}step")
    run.log({**{prefix + name: value for name, value in job["metrics"].items()}, **logged})
    run.summary.update({prefix + name: value for name, value in job["summary"].items()})
    for told in job["artifacts"]:
        artifact = wandb.Artifact(told["name"], told["type"])
        for name, place in told["files"].items():  # where they lie: they are not copied
            artifact.add_file(place, name=name, policy="immutable")
        run.log_artifact(artifact)


def _photographs(
    wandb: Any,
    run: Any,
    photographs: dict[str, str],
    folder: Path,
    pictures: Any,
    *,
    policy: _Policy,
) -> Any:
    """Log the photographs as one artifact, each called by its image's id, and return their table.

    All runs of a project have the same artifact: of the same photographs it is the same version,
    and of others W&B takes the files that it has not.
    """
    if not photographs:
        return None
    artifact = wandb.Artifact("exporter-photographs", "photographs")
    shelf = wandb.Table(columns=["id", "photograph"])
    for id, path in photographs.items():
        artifact.add_file(str(folder / path), name=_file(id, path), policy=policy)
        shelf.add_data(id, _picture(wandb, path, folder, pictures))
    artifact.add(shelf, "photographs")
    run.log_artifact(artifact)
    return shelf


def _file(id: str, path: str) -> str:
    return f"{id}{Path(path).suffix}"


def _refer(
    run: Any, table: Any, name: str, shelf: Any, names: dict[str, str], *, policy: _Policy
) -> None:
    """Log a table as an artifact that refers to the photographs instead of holding them.

    Args:
        run: a W&B run.
        table: a table that is to be logged under ``name``.
        name: likewise.
        shelf: the table of the photographs, whose artifact is logged.
        names: by the files of its pictures, how each is called in it: of a photograph
            ``photographs/`` and its name in the shelf's artifact.
        policy: as of `log`.
    """
    import wandb

    if not any(own.startswith("photographs/") for own in names.values()):
        return
    artifact = wandb.Artifact(f"{name.replace('/', '-')}-{run.id}", "table")
    # Where something of another artifact is added, W&B says what it is referred to by.
    whole = artifact.add(shelf, "photographs")
    artifact.remove(whole)
    if whole.ref is None:
        return
    entries = []
    for file, own in sorted(names.items()):  # with its cell, W&B adds no file that is there
        if own.startswith("photographs/"):
            entries.append(artifact.add_file(file, name=own, policy="immutable"))
        else:
            artifact.add_file(file, name=own, policy=policy)
    artifact.add(table, name)
    for entry in entries:
        own = entry.path.rpartition("/")[2]
        artifact.remove(entry)
        artifact.add_reference(whole.ref.rpartition("/")[0] + f"/{own}", name=entry.path)
    run.log_artifact(artifact)


def _pictures_in(table: dict[str, Any]) -> set[str]:
    """Return the files of a table's pictures, and of the masks that lie over them."""
    places = [place for place, (_, kind) in enumerate(table["columns"]) if kind == "picture"]
    cells = [row[place] for row in table["rows"] for place in places if row[place] is not None]
    over = [
        mask["path"]
        for cell in cells
        if isinstance(cell, dict)
        for mask in cell.get("masks", {}).values()
    ]
    return {*over, *(cell["path"] if isinstance(cell, dict) else cell for cell in cells)}


def _table(wandb: Any, table: dict[str, Any], folder: Path, pictures: dict[str, Any]) -> Any:
    types = {"text": str, "number": float, "flag": bool, "picture": wandb.Image}
    kinds = [kind for _, kind in table["columns"]]
    logged = wandb.Table(
        columns=[name for name, _ in table["columns"]], dtype=[types[kind] for kind in kinds]
    )
    for cells in table["rows"]:
        logged.add_data(
            *(
                _picture(wandb, cell, folder, pictures)
                if kind == "picture" and cell is not None
                else cell
                for kind, cell in zip(kinds, cells, strict=True)
            )
        )
    return logged


def _picture(wandb: Any, cell: Any, folder: Path, pictures: dict[str, Any]) -> Any:
    """Return a picture with what lies over it; every class of a layer has to be known."""
    if isinstance(cell, str):
        if cell not in pictures:
            pictures[cell] = wandb.Image(str(folder / cell))
        return pictures[cell]
    over: dict[str, dict[str, Any]] = {}
    classes: dict[int, str] = {}
    for kind in ("boxes", "masks"):
        for name, layer in cell.get(kind, {}).items():
            labels = {int(index): label for index, label in layer["class_labels"].items()}
            place = {"path": str(folder / layer["path"])} if "path" in layer else {}
            over.setdefault(kind, {})[name] = {**layer, **place, "class_labels": labels}
            classes |= labels
    known = [{"id": index, "name": name} for index, name in classes.items()] or None
    path, caption = str(folder / cell["path"]), cell.get("caption")
    return wandb.Image(path, caption=caption, classes=known, **over)


def _read_heads() -> None:
    """Have Pillow read the head of a JPEG and not its pixels, of which W&B asks for nothing else.

    W&B decodes each picture to know its size, which would be most of what the run costs.
    """
    from PIL import Image
    from PIL.JpegImagePlugin import JpegImageFile

    class Head(JpegImageFile):
        def load(self) -> Any:
            self.close()

    Image.register_open("JPEG", Head, lambda prefix: prefix.startswith(b"\xff\xd8\xff"))


def _begin_at(seconds: float) -> None:
    """Have W&B name and stamp the run by the day alone: this process's clock begins there."""
    real, shift = time.time, seconds - time.time()
    time.time = lambda: real() + shift
    os.environ["TZ"] = "UTC"
    if hasattr(time, "tzset"):
        time.tzset()


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    main()
