from __future__ import annotations

from pathlib import Path

import pytest

from exporter.errors import ModelError
from exporter.models import check_classes, read_classes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", "cat\nhot dog \n猫\n\n"),
        ("c.txt", "\ufeffcat\r\nhot dog\r\n猫"),
        ("c.json", '["cat", "hot dog", "猫"]'),
        ("c.txt", ' ["cat", "hot dog", "猫"]'),
    ],
)
def test_names_are_read_one_a_line_or_as_json(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    assert read_classes(file) == ("cat", "hot dog", "猫")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "hold no name"),
        ("[1, 2]", "must be a JSON list of texts"),
        ("[", "are not JSON"),
        ("cat\n\ndog", "class 1 of .* has no name"),
    ],
)
def test_files_that_are_not_names_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "classes"
    file.write_text(text)
    with pytest.raises(ModelError, match=message):
        read_classes(file)
    with pytest.raises(ModelError, match="cannot be read"):
        read_classes(tmp_path / "absent")


def test_names_must_be_as_many_as_outputs() -> None:
    check_classes((), 7)
    check_classes(("a", "b"), 2)
    with pytest.raises(ModelError, match="2 class names and the model gives 3 values"):
        check_classes(("a", "b"), 3)
