"""The user's function from a layer's output to (N, C, H, W), and whether it fits any."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from exporter.doors import load_function
from exporter.errors import LayerError
from exporter.guard import sentence, user_code
from exporter.layers.layout import Reshape
from exporter.layers.trial import Trial


class GivenReshape:
    """A function of the user's, itself or as ``module:function`` or ``path/file.py:function``.

    It need not fit every output: where it fails, the output is read by its shape.
    """

    def __init__(self, given: str | Reshape) -> None:
        self._who = "the reshape function" + f" {given!r}" * isinstance(given, str)
        self._function = load_function(given) if isinstance(given, str) else given
        self._failure = f"{self._who} gave no (N, C, H, W)"
        self._fits = self._on_tokens = False

    def __call__(self, output: Tensor) -> Tensor:
        """Lay an output out.

        Raises:
            LayerError: if the function fails.
        """
        try:
            with user_code(self._who, error=LayerError):
                laid: Tensor = self._function(output)
        except LayerError as error:
            # It is tried on every output, and meant for tokens.
            if output.ndim == 3 or not self._on_tokens:
                given = f"an output of {tuple(output.shape)}"
                self._failure = sentence(self._who, error.__cause__ or error, given)
                self._on_tokens = output.ndim == 3
            raise
        fits = isinstance(laid, Tensor) and laid.ndim == 4
        self._fits |= fits
        if not fits and output.ndim == 3:
            what = tuple(laid.shape) if isinstance(laid, Tensor) else type(laid).__name__
            self._failure = f"{self._who} gave {what} of an output of {tuple(output.shape)}"
            self._on_tokens = True
        return laid

    def refuse_misfit(self) -> None:
        """Raise ``LayerError`` if it has fitted no layer, with what it raised."""
        if not self._fits:
            raise LayerError(
                f"{self._failure}; it fits the output of no layer; fix it, or leave out --reshape"
            )

    def unused(self, trial: Trial, explained: Collection[str]) -> tuple[str, ...]:
        """Say that the explained layers lie as their shapes say, if they do.

        Raises:
            LayerError: as `refuse_misfit`.
        """
        given = {name for name, plane in trial.planes.items() if plane.layout.kind == "given"}
        self._fits &= bool(given)
        self.refuse_misfit()
        return () if given & set(explained) else (f"{self._who} fits no explained layer",)
