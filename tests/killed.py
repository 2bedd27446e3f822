"""Run an export in a child that kills itself, as ``kill -9`` would, at a chosen file-system event.

Used by test_survival.py, as a program, so that torch is imported once for all the children:

    python killed.py RUN_SETTINGS.json < moments > outcomes

Every line read is JSON: {"out": folder or address, "at": n or null, "resume": bool, "as": engine,
"environment": variables}. The child
makes the whole run where ``as`` is empty, and without pictures and writers where it is ``alone``.
As ``rank 0`` it is the first of two, the other of which never comes, and as ``rank 1`` that other;
as ``worker`` it is one of a cluster's. The n-th event inside the run folder (a file opened for
writing, a rename, a removal, a folder made) is the last the child does; in a store they are the
beginning and the end of each request that changes something.
Every line written is JSON: {"events": [...], "status": wait status}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WATCHED = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


def _child(settings: dict[str, Any], asked: dict[str, Any], log: str) -> None:
    out, at, resume, engine = (asked[name] for name in ("out", "at", "resume", "as"))
    os.environ.update(asked["environment"])
    events = 0
    record = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def happens(event: str) -> None:
        nonlocal events
        os.write(record, f"{event}\n".encode())
        events += 1
        if at is not None and events > at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _WATCHED or not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.fspath(arguments[0])
        if not path.startswith(out):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        happens(f"{event} {path[len(out) :]}")

    from exporter.config import build_config
    from exporter.engines import Recipe, ranks
    from exporter.launchers import Rank
    from exporter.run import computing, join_run, run
    from exporter.store import open_run
    from exporter.store.stored import StoredFiles
    from exporter.stores import place_of

    ask = StoredFiles._ask

    def asking(files: StoredFiles, name: str, what: str, call: Callable[[str], Any]) -> Any:
        if what == "read":
            return ask(files, name, what, call)
        happens(f"{what} {name}: begun")
        answer = ask(files, name, what, call)
        happens(f"{what} {name}: done")
        return answer

    if engine:
        settings = {**settings, "maximise": [], "writers": []}
    where = place_of(out)
    recipe = Recipe(build_config(None, {**settings, "out": where}))
    sys.addaudithook(audit)
    StoredFiles._ask = asking  # type: ignore[method-assign]
    if engine == "worker":
        with computing(where, recipe) as compute:
            for shard in range(len(open_run(where).plan.shards)):
                compute(shard)
    elif engine == "rank 1":
        join_run(recipe, Rank(1, 2, launch="here"))
    else:
        ranks.QUIET, StoredFiles.look = 0.0, 0.05
        rank = Rank(0, 2, launch="here") if engine == "rank 0" else None
        outcome = run(recipe, resume=resume, rank=rank)
        if outcome.failed:
            raise SystemExit(f"writers failed: {outcome.failed}")


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    # Imported before the forks, so that each child costs a fork instead of a start.
    # pyarrow imports pandas where it is installed, and the plug-in brings most that writers need.
    import pandas as pd  # noqa: F401
    import s3fs  # noqa: F401
    import tensorboard.plugins.hparams.summary_v2  # noqa: F401
    import torch  # noqa: F401

    import exporter.run  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.NamedTemporaryFile() as log:
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                    os.dup2(2, 1)
                    _child(settings, asked, log.name)
                    code = 0
                finally:
                    os._exit(code)
            _, status = os.waitpid(child, 0)
            events = Path(log.name).read_text(encoding="utf-8").splitlines()
        sys.stdout.write(json.dumps({"events": events, "status": status}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
