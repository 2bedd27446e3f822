"""The program that talks to W&B's server, where somebody is logged in.

It is run as a process of its own, as `exporter.writers.wandb.session` is. Only the standard library
and W&B are imported here.

    sync FOLDER …          send an offline run, as ``wandb sync`` does
    fetch NAME FOLDER      download an artifact
    use RUN NAME…          note that a run was made from artifacts, or from what other runs logged
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from typing import Any

KEYLESS = 77
"""Exit status where nobody is logged in; `exporter.writers.wandb.process` knows it."""


def main() -> None:
    """Do what the arguments say; standard output is JSON: a ``name``, or an ``error``."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What W&B prints goes to standard error.
    os.dup2(2, 1)
    import wandb

    try:
        known = wandb.login(verify=False)
    except wandb.errors.UsageError:
        known = False
    if not known:
        os._exit(KEYLESS)
    if sys.argv[1] == "sync":
        runpy.run_module("wandb", run_name="__main__", alter_sys=True)
        return
    try:
        told = {"name": _do(*sys.argv[1:])}
    except Exception as error:
        told = {"error": " ".join(str(error).split()) or type(error).__name__}
    print(json.dumps(told), file=answer, flush=True)
    # W&B's own exit hooks may wait for a server that is gone.
    os._exit("error" in told)


def _do(task: str, first: str, *others: str) -> str:
    import wandb

    api = wandb.Api()
    if task == "fetch":
        artifact = api.artifact(first)
        artifact.download(root=others[0], skip_cache=True)
        collection = artifact.name.partition(":")[0]
        return f"{artifact.entity}/{artifact.project}/{collection}:{artifact.version}"
    run = api.run(first)
    for name in others:
        for artifact in [api.artifact(name)] if ":" in name else _logged(api, name):
            run.use_artifact(artifact)
    return first


def _logged(api: Any, name: str) -> list[Any]:
    """Return the run folder that a run has logged or, where it was not, its tables."""
    logged = list(api.run(name).logged_artifacts())
    for kind in ("run-folder", "run_table"):
        if own := [artifact for artifact in logged if artifact.type == kind]:
            return own
    raise ValueError(f"the run {name} has logged no table")


if __name__ == "__main__":
    main()
