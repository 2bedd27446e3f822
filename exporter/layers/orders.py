"""Other ways in which positions may lie: orders of tokens, and planes turned or mirrored.

A reading is held against these: five places of a patch say where tokens lie only where no other
order answers them nearly as well.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor


def other_orders(values: Tensor) -> Iterator[Tensor]:
    """Lay tokens out as those in orders other than row by row would lie.

    Args:
        values: (places, rows, columns), read row by row.

    Yields:
        The same, read column by column, to and fro, and window by window.
    """
    places, rows, columns = values.shape
    if min(rows, columns) < 2:
        return
    yield values.reshape(places, columns, rows).mT
    fro = values.clone()
    fro[:, 1::2] = values[:, 1::2].flip(2)
    yield fro
    for side in range(2, columns):
        if rows % side == 0 and columns % side == 0:
            windows = values.reshape(places, rows // side, columns // side, side, side)
            yield windows.permute(0, 1, 3, 2, 4).reshape(values.shape)


def turns(values: Tensor) -> Iterator[Tensor]:
    """Yield planes (places, rows, columns) in the seven other ways to lay them on an image."""
    for plane in (values, values.mT):
        for axes in ((), (1,), (2,), (1, 2)):
            if plane is not values or axes:
                yield plane.flip(axes)
