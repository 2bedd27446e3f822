"""Text in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SIGNS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SIGNS |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
# After the end of a row, a bracket would begin an option, and a star be part of the command.
_SIGNS |= {sign: f"{{{sign}}}" for sign in "[]*"}
_SPECIAL = _SIGNS | {sign: f"\\{sign}" for sign in "&%$#_{}"}


def tex(text: str) -> str:
    r"""Escape text for LaTeX.

    Examples:
        >>> tex("50 % of a_b")
        '50 \\% of a\\_b'
    """
    # An empty line would end a caption.
    return "".join(_SPECIAL.get(letter, letter) for letter in re.sub(r"\s+", " ", text))


def code(text: str) -> str:
    """Return text as code in LaTeX."""
    return rf"\texttt{{{tex(text)}}}"


def listed(names: Sequence[str]) -> str:
    """Return names as a list in a sentence.

    Examples:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
