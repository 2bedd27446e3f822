"""What reaches the terminal: nothing that it would obey."""

from __future__ import annotations

import io
import shutil
import time
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.console import ERR, OUT, Bar, marked, say_outcome, shown
from exporter.run import Outcome
from exporter.store import open_run


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("\x1b[2Jgone", "\ufffd[2Jgone"),
        ("a\nerror: b\r\tc", "a error: b  c"),
        ("\x9b31m\x07\x7f", "\ufffd31m\ufffd\ufffd"),
        ("cat\u202egpj.exe", "cat\ufffdgpj.exe"),
        ("Köln 猫 👩\u200d🚀", "Köln 猫 👩\u200d🚀"),
    ],
)
def test_control_characters_are_not_printed(text: str, safe: str) -> None:
    assert shown(text) == safe


def test_progress_is_told_in_plain_lines_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a stage whose first step takes long; and not at every step."""

    def told() -> list[str]:
        end = time.monotonic() + 30
        while not (lines := capsys.readouterr().err.splitlines()) and time.monotonic() < end:
            time.sleep(0.01)
        return lines

    monkeypatch.setattr("exporter.console.FIRST", 0.05)
    with Bar() as bar:
        bar.begin("reading\x1b[2J")
        assert told() == ["reading\ufffd[2J"]
        # The next line is due in half a minute, however often the work goes on.
        for _ in range(50):
            bar.advance()
        time.sleep(0.1)
    assert capsys.readouterr().err == ""
    bar = Bar()
    bar.begin("computing maps", 2000)
    bar.advance(1000)
    with bar:
        assert told() == ["computing maps: 1,000 of 2,000"]


def test_the_end_of_a_run_says_what_it_found(
    sample_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run(sample_run)
    say_outcome(Outcome(run, ()))
    said = capsys.readouterr().out.splitlines()
    totals = run.totals
    assert f"accuracy {100 * totals.accuracy:.1f} % of {totals.labelled} labelled images" in said
    assert "dead channels: No image activates 1 of 12 channels of layer3." in said
    assert "skipped: 1 image could not be read." in said
    assert sum(line.startswith("confusion: It mistakes ") for line in said) == 1
    assert len(said) < 12


def test_a_short_command_tells_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar() as bar:
        bar.begin("reading", 2)
        bar.advance(2)
    assert capsys.readouterr().err == ""


def test_names_are_no_markup_and_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    for console in (OUT, ERR):
        console.print(marked("[red]:cat:[/]"))
    said = capsys.readouterr()
    assert said.out == said.err == "[red]:cat:[/]\n"


def test_a_reader_that_went_away_is_told_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sys.stdout", Gone())
    with pytest.raises(BrokenPipeError):
        OUT.print("anything")


def test_that_tensorboard_is_served_is_said_once(
    sample_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Waits:
        """Waits until the bar would have told again, and is then interrupted."""

        def wait(self) -> None:
            time.sleep(0.3)
            raise KeyboardInterrupt

    monkeypatch.setattr("exporter.console.FIRST", 0.05)
    monkeypatch.setattr("exporter.console.EVERY", 0.05)
    monkeypatch.setattr("exporter.cli.looking.Event", Waits)
    monkeypatch.setattr("tensorboard.program.TensorBoard.launch", lambda _: "http://localhost/")
    log = shutil.copytree(sample_run, tmp_path / "served")
    assert main(["render", str(log), "--writer", "tensorboard", "--keep", "1"]) == 0
    capsys.readouterr()
    assert main(["tensorboard", str(log)]) == 0
    assert capsys.readouterr().err.count("Ctrl-C ends it") == 1
