"""What a shell completes, as it asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from exporter.cli import group, main
from exporter.cli.completion import VARIABLE
from exporter.maps import METHODS


def completed(*words: str) -> list[str]:
    """Return what is offered for the last word, files as ``file``."""
    *before, last = words
    offered = ShellComplete(group, {}, "exporter", VARIABLE).get_completions(before, last)
    return [item.value if item.type == "plain" else item.type for item in offered]


def test_commands_and_flags_are_completed() -> None:
    assert completed("com") == ["compare", "completion"]
    assert completed("completion", "") == ["bash", "zsh", "fish"]
    assert completed("run", "--act") == ["--activation"]


def test_all_maps_are_completed() -> None:
    assert completed("run", "--map", "") == sorted(METHODS)
    assert completed("run", "--map", "xgrad") == ["xgradcam"]


def test_all_models_of_the_libraries_are_completed() -> None:
    import timm
    from torchvision import models

    assert completed("run", "--model", "") == ["demo", "torchvision:", "timm:", "file"]
    offered = completed("run", "--model", "torchvision:")
    assert offered == [f"torchvision:{name}" for name in sorted(models.list_models())]
    offered = completed("layers", "timm:")
    assert offered == [f"timm:{name}" for name in sorted(timm.list_models())]
    assert completed("layers", "timm:resnet10t") == ["timm:resnet10t"]
    assert completed("run", "--model", "mine.module:") == []
    assert completed("run", "--checkpoint", "ep") == ["file"]


def test_layers_of_a_library_s_model_are_completed(tmp_path: Path) -> None:
    model = ("run", "--model", "torchvision:resnet18")
    assert completed(*model, "--layer", "layer4.1.") == [
        f"layer4.1.{name}" for name in ("conv1", "bn1", "relu", "conv2", "bn2")
    ]
    assert completed(*model, "--layer", "a") == ["auto", "avgpool"]
    (tmp_path / "mine.py").write_text("raise SystemExit('this code must not run')\n")
    own = f"{tmp_path / 'mine.py'}:build"
    assert completed("run", "--model", own, "--layer", "") == ["auto"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_this_command(
    shell: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capfd.readouterr().out
    assert f"{VARIABLE}={shell}_complete" in script


def test_nothing_is_said_where_completing_fails(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "exporter run --model torchvision:none --layer ")
    monkeypatch.setenv("COMP_CWORD", "5")
    assert main([]) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_bash_completes_a_model(tmp_path: Path) -> None:
    program = tmp_path / "exporter"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m exporter "$@"\n')
    program.chmod(0o755)
    typed = """
        eval "$(exporter completion bash)"
        COMP_WORDS=(exporter run --model torchvision:resnet1) COMP_CWORD=3
        _exporter_completion exporter
        printf '%s\\n' "${COMPREPLY[@]}" "${COMP_WORDBREAKS/:/colon}"
    """
    root = str(Path(__file__).parents[1])
    asked = subprocess.run(
        ["bash", "-c", typed],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    offered = asked.stdout.splitlines()
    assert offered[:3] == [f"torchvision:resnet1{n}" for n in ("01", "52", "8")]
    assert "colon" not in asked.stdout
