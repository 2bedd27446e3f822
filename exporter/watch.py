"""Who is told how the work goes on."""

from __future__ import annotations


class Watch:
    """What is told how the work goes on, here in vain; any thread may call any method."""

    def begin(self, stage: str, total: int | None = None) -> None:
        """Hear that a stage of ``total`` steps begins (None: nobody knows how many)."""

    def advance(self, steps: int = 1) -> None:
        """Hear that so many steps of the stage are done."""

    def say(self, line: str) -> None:
        """Hear one line that the user should read."""

    def memory_short(self, images: int) -> None:
        """Hear that memory ran out, and how many images then went through the model together."""
        self.say(
            f"memory ran out, so at most {images} images of a batch were computed at a time; a "
            "batch size that small avoids the failed attempts"
        )
