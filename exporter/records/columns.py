"""How a stored record says its columns: each field's type, and beside it what the column holds.

``exporter.store.schema`` derives the Arrow schema from it, and ``tests/store/test_schema.py`` the
tables of ``docs/run-folder.md``. An ``int`` is stored as int64 and a ``float`` as float64, unless
the type says less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

Int32 = Annotated[int, "int32"]
Float32 = Annotated[float, "float32"]
Box = tuple[Float32, Float32, Float32, Float32]
"""Left, top, right, bottom in pixels of the original."""


@dataclass(frozen=True, slots=True)
class Column:
    """What a column holds.

    Attributes:
        about: what it holds, for the documentation and the file's metadata.
        unit: unit of its values, or ``""``.
        size: length of its lists, where all have the same.
        picture: whether its bytes are a picture, stored as Hugging Face's ``datasets`` wants it.
        required: whether it is never null.
    """

    about: str
    unit: str = ""
    size: int | None = None
    picture: bool = False
    required: bool = False


LAYER = Column("qualified name of the layer; empty for a pixel method")
METHOD = Column("name of the method")
ROWS = Column("rows of the map", "cells")
COLUMNS = Column("columns of the map", "cells")
