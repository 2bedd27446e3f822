from __future__ import annotations

from pathlib import Path

from PIL import Image


def test_photographs_are_small_enough_to_commit(photos: Path) -> None:
    files = sorted(photos.glob("*.jpg"))
    assert len(files) >= 12
    assert sum(file.stat().st_size for file in files) < 1_500_000
    for file in files:
        with Image.open(file) as image:
            assert max(image.size) <= 500


def test_every_photograph_has_credits_with_a_free_licence(photos: Path) -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (photos / "CREDITS.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    assert {row[0].strip("`") for row in rows} == {file.name for file in photos.glob("*.jpg")}
    assert {row[4] for row in rows} == {"CC0", "public domain"}
    assert all(row[2] and "skimage.data." in row[3] for row in rows)
