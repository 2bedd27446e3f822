"""The program that talks to W&B: commands in on standard input, an offline log out.

The writer runs this file as a process of its own. So the caller's environment, its own W&B run, its
threads and its signals are left alone; W&B is imported while the montages are
drawn; and when the caller dies its end of the pipe closes and this ends too. Only the standard
library and W&B are imported here. A command is a line of JSON; so is the one answer, at the end.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from queue import SimpleQueue
from typing import Any, TextIO

# Before, `wandb sync` retries for ever; 0.18 also asks the network when it is offline.
_OLDEST = (0, 30)

# A version that lacks one of them has nothing to switch off there.
_SETTINGS: dict[str, Any] = {
    "host": "not-recorded",
    "program": "exporter",
    "program_relpath": "",
    "program_abspath": "",
    "username": "",
    "email": "",
    "docker": "",
    "x_executable": "python",
    "console": "off",
    "silent": True,
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "disable_job_creation": True,
    "symlink": False,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}


def main() -> None:
    """Answer the commands on standard input, then exit."""
    # What W&B prints goes to standard error, so that the answer is alone on standard output.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lines: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, lines), daemon=True).start()
    try:
        answer = record(_commands(lines))
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=answers, flush=True)
    # W&B's own exit hooks would wait for a run that failed half-way.
    os._exit(1 if "error" in answer else 0)


def record(commands: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Log what the commands say into one offline run.

    Args:
        commands: ``start`` (init: arguments of ``wandb.init``), then ``table`` (name, columns: a
            (name, kind) each), ``rows`` (rows of its cells) and ``summary`` (values), at last
            ``finish``.

    Returns:
        ``{"fast": …}``: whether pictures were handed over without being decoded.
    """
    # The temporary files of this process only: W&B's service puts a socket in TMPDIR, and the path
    # of a socket may not be longer than about 100 bytes.
    tempfile.tempdir = os.environ["EXPORTER_WANDB_TEMP"]
    # W&B takes pandas where it finds it, for a third of a second, and nothing here is a data frame.
    sys.modules["pandas"] = None  # type: ignore[assignment]
    import wandb

    if tuple(map(int, wandb.__version__.split(".")[:2])) < _OLDEST:
        wanted = "pip install -U 'wandb>={}.{}'".format(*_OLDEST)
        return {"error": f"it is version {wandb.__version__}, too old; {wanted}"}
    start = next(commands)
    pictures = _Pictures(wandb, plain=start.get("plain", False))
    run = wandb.init(mode="offline", settings=_settings(wandb), **start["init"])
    name, table, kinds = "", None, []
    for command in commands:
        if command["do"] == "table":
            if table is not None:
                run.log({name: table}, commit=False)
            name, kinds = command["name"], [kind for _, kind in command["columns"]]
            types = {"text": str, "number": float, "flag": bool, "picture": wandb.Image}
            table = wandb.Table(
                columns=[column for column, _ in command["columns"]],
                dtype=[types[kind] for kind in kinds],
            )
        elif command["do"] == "rows":
            assert table is not None
            for cells in command["rows"]:
                table.add_data(*map(pictures.cell, kinds, cells))
        elif command["do"] == "summary":
            run.summary.update(command["values"])
        elif command["do"] == "finish":
            run.log({name: table} if table is not None else {}, commit=True)
            run.finish()
            wandb.teardown()
            return {"fast": pictures.fast is True}
    raise EOFError("the exporter stopped before the run was whole")


class _Pictures:
    """Cells of a table; a picture is handed over by its path and what is known of it.

    ``wandb.Image(path)`` decodes the file to learn its size, and an artifact copies it: most of
    the cost of a row. The first picture is made both ways; unless W&B writes the same of both, all
    are made its own way.
    """

    def __init__(self, wandb: Any, *, plain: bool) -> None:
        self._wandb = wandb
        self.fast: bool | None = False if plain else None

    def cell(self, kind: str, value: Any) -> Any:
        """Return a cell as W&B's table takes it."""
        if kind == "text" and isinstance(value, str) and value.startswith("wandb-"):
            # Text that begins as W&B's own links do would be taken for one, and followed.
            return " " + value
        if kind != "picture" or value is None:
            return value
        if self.fast is None:
            self.fast = self._agree(value)
        return self._stored(value) if self.fast else self._wandb.Image(value["path"])

    def _stored(self, known: dict[str, Any]) -> Any:
        image = self._wandb.Image.__new__(self._wandb.Image)
        super(self._wandb.Image, image).__init__()
        state = {
            "_grouping": None,
            "_image": None,
            "_classes": None,
            "_boxes": None,
            "_masks": None,
            "_file_type": None,
            "_extension": None,
            "_is_tmp": False,
            "_path": known["path"],
            "_width": known["width"],
            "_height": known["height"],
            "_sha256": known["sha256"],
            "_size": known["size"],
            "format": known["format"],
            "to_json": partial(self._to_json, image),
        }
        for name, value in state.items():
            setattr(image, name, value)
        return image

    def _to_json(self, image: Any, target: Any) -> Any:
        if isinstance(target, self._wandb.Artifact):
            # "immutable": the file is taken from where it lies, and not copied to a staging folder.
            name = f"media/images/{image._sha256[:20]}/{os.path.basename(image._path)}"  # noqa: PTH119
            target.add_file(image._path, name=name, policy="immutable", skip_cache=True)
        return type(image).to_json(image, target)

    def _agree(self, known: dict[str, Any]) -> bool:
        def written(picture: Any) -> Any:
            artifact = self._wandb.Artifact("trial", type="trial")
            table = self._wandb.Table(columns=["picture"], data=[[picture]])
            return table.to_json(artifact), sorted(
                (path, entry.digest, entry.size)
                for path, entry in artifact.manifest.entries.items()
            )

        try:
            return bool(written(self._stored(known)) == written(self._wandb.Image(known["path"])))
        except Exception:
            return False


def _settings(wandb: Any) -> Any:
    known = wandb.Settings.model_fields
    return wandb.Settings(**{name: _SETTINGS[name] for name in _SETTINGS if name in known})


def _listen(source: TextIO, lines: SimpleQueue[str | None]) -> None:
    for line in source:
        lines.put(line)
    lines.put(None)


def _commands(lines: SimpleQueue[str | None]) -> Iterator[dict[str, Any]]:
    while (line := lines.get()) is not None:
        yield json.loads(line)


if __name__ == "__main__":
    main()
