"""How much of a training's time may go into explaining."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from exporter.errors import ConfigError

FEWEST = 4
"""Images of an epoch below which rather fewer epochs are explained."""


class Budget:
    """Tells whether the next epoch can be explained without exceeding a share of the time.

    The first epoch always can: it shows what one costs.

    Attributes:
        share: of the time that training alone takes; None for no limit.
        spent: seconds that explaining took so far.
        last: seconds that the last epoch took, or that the next one will, with fewer images.
    """

    def __init__(
        self, share: str | float | None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Read a share such as ``"5 %"`` or 0.05; None is no limit.

        Raises:
            ConfigError: if it is none, or not above 0.
        """
        self.share = _share(share)
        self.spent = self.last = 0.0
        self._clock = clock
        self._begun = clock()

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time that the block takes."""
        begun = self._clock()
        try:
            yield
        finally:
            self.last = self._clock() - begun
            self.spent += self.last

    def fewer(self, images: int, epochs: int) -> int:
        """Return how many images fit every epoch, at the pace so far, and count on so many.

        An epoch is taken to cost as much as the last one, in proportion to its images.

        Args:
            images: of the last epoch that was explained.
            epochs: that have been trained since, or explained: one interval of training each.

        Returns:
            `FEWEST` at least, ``images`` at most.
        """
        if self.share is None or not self.last or images <= FEWEST:
            return images
        each = self.share * (self._clock() - self._begun - self.spent) / epochs
        number = max(FEWEST, min(images, int(images * each / self.last)))
        self.last *= number / images
        return number

    def refusal(self) -> str:
        """Say why the next epoch is left out; empty where it is not."""
        if self.share is None or not self.spent:
            return ""
        training = self._clock() - self._begun - self.spent
        if self.spent + self.last <= self.share * training:
            return ""
        return (
            f"explaining one epoch took {self.last:.2g} s and {self.spent:.2g} s so far, and "
            f"{100 * self.share:g} % of the {training:.2g} s of training is the budget"
        )


def _share(given: str | float | None) -> float | None:
    if given is None:
        return None
    number = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", given) if isinstance(given, str) else None
    share = float(number[1]) / 100 if number else given
    if isinstance(share, bool) or not isinstance(share, int | float) or not share > 0:
        raise ConfigError(
            f"the budget is {given!r}; give a share of the training's time such as '5 %' or 0.05, "
            "or None for no limit"
        )
    return float(share)
