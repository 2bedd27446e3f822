"""How a figure looks: colours, and type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import ConfigError, choices
from exporter.render import OPACITY, get_colormap

SMALLEST = 3.5
"""Points below which nobody reads."""


@dataclass(frozen=True)
class Look:
    """How maps are drawn.

    Attributes:
        target: what they explain; the first stored if None.
        colormap: name of a table of colours.
        opacity: where a map is largest, 0 to 1.
        original: a folder with the photographs, which are then shown whole.
        uniform: whether maps are equally opaque everywhere, and not where they are strong only.
        threshold: share of a map's range below which it is not drawn, 0 to 1.
    """

    target: str | None = None
    colormap: str = "viridis"
    opacity: float = OPACITY
    original: Path | None = None
    uniform: bool = False
    threshold: float = 0.0

    def __post_init__(self) -> None:
        get_colormap(self.colormap)
        if not 0 <= self.opacity <= 1:
            raise ConfigError(f"the opacity is {self.opacity:g}; give a number from 0 to 1")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"the threshold is {self.threshold:g}; give a number from 0 to 1")

    @classmethod
    def of(
        cls,
        target: str | None,
        colormap: str,
        opacity: float | None,
        original: str | Path | None,
        *,
        uniform: bool = False,
        threshold: float = 0.0,
    ) -> Look:
        """Return the look with the report's opacity where none is given."""
        photographs = None if original is None else Path(original)
        strength = OPACITY if opacity is None else opacity
        return cls(target, colormap, strength, photographs, uniform, threshold)

    @property
    def signed(self) -> bool:
        """Whether maps are shown with their negative values, zero in the middle of the colours."""
        return self.colormap == "diverging"


@dataclass(frozen=True)
class Type:
    """How text is set."""

    family: str
    size: float

    def __post_init__(self) -> None:
        if not 2 <= self.size <= 40:
            raise ConfigError(f"the font size is {self.size:g}; give 2 to 40 points")
        try:
            from matplotlib import font_manager
        except ImportError as error:
            raise ConfigError(
                "figures are drawn with matplotlib, which is not installed; "
                "pip install 'exporter[figures]'"
            ) from error
        try:
            font_manager.findfont(self.family, fallback_to_default=False)
        except ValueError:
            known = sorted({entry.name for entry in font_manager.fontManager.ttflist})
            raise ConfigError(
                f"there is no font {self.family!r} on this machine; {choices(self.family, known)}"
            ) from None

    @property
    def small(self) -> float:
        """The size of captions, in points."""
        return self.size * 6 / 7

    def refuse_missing(self, text: str) -> None:
        """Refuse text with a character that the font lacks: a box would stand in its place.

        Raises:
            ConfigError: naming the character.
        """
        from matplotlib import font_manager

        known = font_manager.get_font(font_manager.findfont(self.family)).get_charmap()
        missing = next((letter for letter in text if ord(letter) not in known), None)
        if missing is not None:
            raise ConfigError(
                f"the font {self.family!r} has no {missing!r}, which {text!r} needs; give another "
                "font"
            )

    def fitted(
        self, text: str, size: float, width: float, *, end: bool = False, tail: str = ""
    ) -> str:
        """Shorten text to a width in inches, at its end or beginning; the tail is never cut."""
        lengths = range(len(text), 0, -1)

        def fits(said: str) -> bool:
            return self._width(said, size) <= width

        if end:
            cut = ("…" * (n < len(text)) + text[len(text) - n :] for n in lengths)
        else:
            cut = (text[:n].rstrip() + "…" * (n < len(text)) for n in lengths)
        return next((f"{said}{tail}" for said in cut if fits(f"{said}{tail}")), "…")

    def shrunk(self, texts: Iterable[str], size: float, width: float) -> float:
        """Return the size, `SMALLEST` points at least, at which every text fits a width.

        Raises:
            ConfigError: if one does not fit even then.
        """
        for text in texts:
            size = min(size, size * width / max(self._width(text, size), 1e-9))
            if size < SMALLEST:
                raise ConfigError(
                    f"{text!r} has no room above or below a column {width:.2f} inches wide; give a "
                    "greater width, or fewer maps or layers"
                )
        return size

    def _width(self, text: str, size: float) -> float:
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import TextPath

        plain = text.replace("$", r"\$")  # nothing is mathematics
        path = TextPath((0, 0), plain, size=size, prop=FontProperties(family=self.family))
        return float(path.get_extents().x1) / 72 if len(path.vertices) else 0.0
