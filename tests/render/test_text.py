from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.render import draw_text, fit_text, text, text_width


def drawn(line: str, *, size: int = 20, width: int | None = None) -> np.ndarray:
    canvas = np.full((40, 300, 3), 255, np.uint8)
    draw_text(canvas, line, (4, 28), size=size, width=width)
    return canvas


@pytest.fixture(params=["opencv", "pillow"])
def either_font(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pillow":
        monkeypatch.setattr(text, "_face", lambda: None)
    elif text._face() is None:
        pytest.skip("OpenCV 4 has no font of its own")
    fit_text.cache_clear()
    return str(request.param)


@pytest.mark.parametrize("sign", ["猫", "é", "Я", "Σ", "虎"])
def test_a_letter_of_another_script_has_a_glyph_of_its_own(either_font: str, sign: str) -> None:
    if either_font == "pillow" and "CJK" not in str(text._pillow_font(20).path):
        pytest.skip("this system has no CJK font")
    glyph = drawn(sign)
    assert glyph.min() < 128
    assert not np.array_equal(glyph, drawn("?"))
    assert not np.array_equal(glyph, drawn("\ufffe")), "the glyph of a letter that is not there"
    assert not np.array_equal(glyph, drawn("犬"))


def test_text_changes_the_pixels_and_the_colour_is_rgb(either_font: str) -> None:
    assert not np.array_equal(drawn("cat"), drawn("dog"))
    canvas = np.full((40, 100, 3), 255, np.uint8)
    draw_text(canvas, "MMM", (4, 30), size=24, colour=(200, 0, 0))
    ink = canvas[canvas[..., 1] < 30]
    assert len(ink)
    assert ink[:, 0].min() > 150


@pytest.mark.slow
@given(line=st.text(max_size=60), width=st.integers(0, 120))
def test_any_text_stays_within_its_width(line: str, width: int) -> None:
    canvas = np.full((40, 200, 3), 255, np.uint8)
    draw_text(canvas, line, (20, 28), size=14, width=width)
    # A glyph may lean over its advance by its antialiased edge.
    assert canvas[:, 20 + width + 2 :].min() == 255


def test_a_long_line_ends_in_an_ellipsis_that_fits(either_font: str) -> None:
    short = fit_text("a rather long name of a file.jpg", 13, 80)
    assert short.endswith("…")
    assert text_width(short, 13) <= 80
    assert fit_text("short", 13, 80) == "short"
    assert fit_text("anything", 13, 3) == ""


def test_line_breaks_and_direction_overrides_become_spaces() -> None:
    assert fit_text("a\nb\u202egpj.exe", 13, 500) == "a b gpj.exe"


def test_a_detached_accent_joins_its_letter() -> None:
    assert fit_text("cafe\u0301", 13, 500) == "café"
