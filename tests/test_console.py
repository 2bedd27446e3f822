"""What reaches the terminal: nothing that it would obey."""

from __future__ import annotations

import io

import pytest

from exporter.console import ERR, OUT, marked, shown


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
