"""How the first batch's output is read; whatever follows is read like it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from exporter.targets import Scorer, check_rows, locate_output, settle_reading


class FirstRead:
    """Settles which part of an output is explained, and what its numbers are.

    Attributes:
        unsure: whether that part may be one image's although it is as long as the batch: a part of
            a list that is as long, or a square.
    """

    def __init__(
        self, text: str, output: str | None, reading: str, ends: Callable[[], str] | None
    ) -> None:
        """Take what `settle_reading` is asked with."""
        self._asked = (text, output, reading, ends)
        self._read: Scorer | None = None
        self.unsure = False

    def __call__(self, returned: Any, own: Scorer) -> Scorer:
        """Return a scorer that reads outputs as the first one is read, which this may be."""
        if self._read is None:
            text, output, reading, ends = self._asked
            read, _ = settle_reading(text, (), returned, output, reading=reading, ends=ends)
            self._read = read
            if read.output is not None:
                shape = locate_output(returned, read.output)[0].shape
                among = len(returned) if read.output[:1].isdigit() else 0
                self.unsure = 1 < shape[0] in (among, *shape[1:][-1:])
        target = replace(self._read.target, k=own.target.k)
        return replace(own, target=target, output=self._read.output, given=self._read.given)

    def check_one(self, returned: Any) -> None:
        """Refuse an output whose part has other than one row, given that of one image.

        Raises:
            TargetError: as `check_rows`.
        """
        if self._read is not None and self._read.output is not None:
            path = self._read.output
            check_rows(len(locate_output(returned, path)[0]), 1, path)
