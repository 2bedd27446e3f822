"""How a stored record says its columns: each field's type, and beside it what the column holds.

``exporter.store.schema`` derives the Arrow schema from it, and ``tests/store/test_schema.py`` the
tables of ``docs/run-folder.md``. An ``int`` is stored as int64 and a ``float`` as float64, unless
the type says less. What is read from a run folder is held against these types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=0)]
Pixels = Annotated[int, Field(gt=0, le=65_500)]
"""A side of a picture; JPEG has no longer ones."""
Id = Annotated[str, Field(pattern="^[0-9A-Za-z_-]{1,120}$")]
"""Names an image, and files that are made of it."""
_NAME = "[0-9A-Za-z_-][0-9A-Za-z._-]{0,119}"
FileName = Annotated[str, Field(pattern=f"^{_NAME}$")]
FilePath = Annotated[str, Field(pattern=f"^({_NAME}/){{0,3}}{_NAME}$")]
"""A file of a run, relative to it."""

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
