"""Text in pictures: any Unicode, kept within a width.

OpenCV 5 carries a font of its own (``uni``) with CJK; on OpenCV 4 Pillow draws with a font of the
system (DejaVu or Noto where there is one).
"""

from __future__ import annotations

import threading
import unicodedata
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

ELLIPSIS = "…"

_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "DejaVuSans.ttf",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
)
_local = threading.local()


def draw_text(
    drawing: NDArray[np.uint8],
    text: str,
    origin: tuple[int, int],
    *,
    size: int = 13,
    colour: tuple[int, int, int] = (32, 32, 32),
    width: int | None = None,
) -> None:
    """Write one line on a drawing, shortened with an ellipsis where it would not fit.

    Args:
        drawing: uint8 (H, W, 3) RGB, contiguous; written in place.
        text: any text; control characters and line breaks become spaces.
        origin: (x, y) of the line's left end on its baseline, in pixels.
        size: height of the font in pixels.
        colour: RGB.
        width: the most pixels it may take; None reaches to the drawing's right edge.
    """
    room = drawing.shape[1] - origin[0] if width is None else width
    line = fit_text(text, size, room)
    if not line:
        return
    face = _face()
    if face is not None:
        cv2.putText(drawing, line, origin, colour, face, size)
        return
    from PIL import Image, ImageDraw

    picture = Image.fromarray(drawing)
    ImageDraw.Draw(picture).text(origin, line, fill=colour, font=_pillow_font(size), anchor="ls")
    drawing[...] = np.asarray(picture)


def text_width(text: str, size: int) -> int:
    """Return how many pixels wide a line is at a font height of ``size`` pixels."""
    face = _face()
    if face is None:
        return int(np.ceil(_pillow_font(size).getlength(text)))
    x, _, wide, _ = cv2.getTextSize((0, 0), text, (0, 0), face, size)
    return int(x + wide)


@lru_cache(maxsize=4096)
def fit_text(text: str, size: int, width: int) -> str:
    """Return a line, shortened with an ellipsis so that it is at most ``width`` pixels wide.

    >>> fit_text("a", 13, 0)
    ''
    """
    line = _one_line(text)
    if text_width(line, size) <= width:
        return line

    def shortened(length: int) -> str:
        return line[:length].rstrip() + ELLIPSIS

    fits = bisect_right(range(len(line)), width, key=lambda n: text_width(shortened(n), size))
    return shortened(fits - 1) if fits else ""


def _one_line(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    # NFC, because the fonts place a separate accent beside its letter. Cc, Cf, Cs, Zl and Zp have
    # no glyph; a direction override among them could disguise a file's name.
    return "".join(
        " " if unicodedata.category(sign) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else sign
        for sign in unicodedata.normalize("NFC", text)
    )


def _face() -> Any:
    """Return this thread's OpenCV 5 font face, or None where OpenCV has none."""
    if not hasattr(_local, "face"):
        _local.face = cv2.FontFace("uni") if hasattr(cv2, "FontFace") else None
    return _local.face


@lru_cache(maxsize=16)
def _pillow_font(size: int) -> Any:
    from PIL import ImageFont

    for name in _FONTS:
        if name.startswith("/") and not Path(name).exists():
            continue
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
