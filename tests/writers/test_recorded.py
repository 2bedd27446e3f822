"""Nothing that a writer makes tells the machine, its user or where anything lies on it."""

from __future__ import annotations

import platform
import re
import shlex
import shutil
import socket
from pathlib import Path

import pytest
import torch

from exporter.cli import main
from exporter.demo import photographs
from exporter.writers.wandb.process import HERE

_PATH = re.compile(rb"/(?:home|root|Users|tmp|mnt)/[\w.-]+")
USER, HOST = "somebody-of-the-lab", "host-of-an-anonymous-author"


@pytest.mark.slow
def test_no_sink_tells_user_host_home_or_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is given by absolute paths, from a home that tells its owner."""
    home = tmp_path / "home" / USER
    photos, run, logs = home / "photos", home / "runs" / "mine", home / "logs"
    photos.mkdir(parents=True)
    for file in sorted(photographs().glob("*.jpg"))[:2]:
        shutil.copy(file, photos)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    monkeypatch.setattr(platform, "node", lambda: HOST)
    for variable in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(variable, USER)
    (home / "net.py").write_text("from tests.small import small as build\n")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from tests.small import small

    torch.save({"state_dict": small().state_dict(), "epoch": 3}, home / "net.pt")
    given = (
        f"run --model {home}/net.py:build --checkpoint {home}/net.pt --images {photos} --out {run} "
        f"--tensorboard-dir {logs} --map gradcam"
    )
    monkeypatch.setattr("sys.argv", ["exporter", *shlex.split(given)])
    assert main(shlex.split(given)) == 0
    # A real name of two letters is in any picture.
    real = {name for name in (socket.gethostname(), Path.home().name) if len(name) > 4}
    secrets = {USER, HOST, str(home), str(tmp_path)} | real
    folders = [logs, *(run / name for name in ("tensorboard", "wandb", "html"))]
    for folder in folders:
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert files, folder
        for file in files:
            content = file.read_bytes()
            if HERE or file.suffix != ".wandb":
                told = [secret for secret in secrets if secret.encode() in content]
                assert told == [], file
                assert _PATH.findall(content) == [], file
