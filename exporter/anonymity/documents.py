"""What is in Parquet, PDF, TensorBoard's event files and W&B's logs."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from exporter.anonymity.piece import Inside, Piece

_STREAM = re.compile(rb"stream\r?\n(.*?)endstream", re.DOTALL)
_HEX = re.compile(rb"<([0-9A-Fa-f\s]{8,})>")
_LONG = 200
"""Bytes from which a value of a table is taken for a file, and decoded by itself."""

_BLOCK, _HEADER = 32768, 7


def read_parquet(place: str, content: bytes, inside: Inside) -> Iterator[Piece]:
    """Yield the metadata of a Parquet file, and the texts and bytes of its columns."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(content))
    schema = file.schema_arrow
    said = [file.metadata.metadata, schema.metadata, file.metadata.created_by, schema]
    said += [field.metadata for field in schema]
    # Bytes are told with escapes, and the schema of Arrow is Base64.
    yield from inside(f"{place} (metadata)", "\n".join(map(str, said)).encode())
    for group in range(file.metadata.num_row_groups):
        table = file.read_row_group(group)
        for name in table.column_names:
            inner = f"{place} › column {name}"
            for array in table.column(name).chunks:
                for values in _leaves(array):
                    raw = [v.encode() if isinstance(v, str) else v for v in values if v]
                    yield from inside(inner, b"\n".join(v for v in raw if len(v) < _LONG))
                    for value in raw:
                        if len(value) >= _LONG:
                            yield from inside(inner, value)


def _leaves(array: Any) -> Iterator[list[Any]]:
    """Yield the texts and bytes of an Arrow array, however it nests."""
    from pyarrow import types

    kind = array.type
    if types.is_dictionary(kind):
        yield from _leaves(array.dictionary)
    elif types.is_map(kind):
        yield from _leaves(array.keys)
        yield from _leaves(array.items)
    elif types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _leaves(array.field(number))
    elif types.is_nested(kind):
        yield from _leaves(array.flatten())
    elif any(f(kind) for f in (types.is_string, types.is_large_string, types.is_binary,
                               types.is_large_binary, types.is_fixed_size_binary)):  # fmt: skip
        yield array.to_pylist()


def read_pdf(place: str, content: bytes, inside: Inside) -> Iterator[Piece]:
    """Yield a PDF as it is, its streams unpacked, and its texts in hexadecimal."""
    yield Piece(place, content)
    parts = [content]
    for number, match in enumerate(_STREAM.finditer(content)):
        try:
            parts.append(zlib.decompressobj().decompress(match[1]))
        except zlib.error:
            parts.append(match[1])
        yield from inside(f"{place} › stream {number}", parts[-1])
    for part in parts:
        for match in _HEX.finditer(part):
            digits = b"".join(match[1].split()).decode()
            yield Piece(f"{place} › text", bytes.fromhex(digits[: len(digits) // 2 * 2]), text=True)


def read_events(place: str, content: bytes, inside: Inside) -> Iterator[Piece]:
    """Yield the events of a TensorBoard log, and the texts and pictures in them."""
    from tensorboard.compat.proto.event_pb2 import Event

    at = 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        event = Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length
        for value in event.summary.value:
            for inner in (value.image.encoded_image_string, *value.tensor.string_val):
                yield from inside(f"{place} › {value.tag}", inner)
            value.image.ClearField("encoded_image_string")
            value.tensor.ClearField("string_val")
        yield Piece(place, event.SerializeToString())


def read_wandb(place: str, content: bytes, inside: Inside) -> Iterator[Piece]:
    """Yield the records of a W&B log, which is cut into blocks in the middle of words."""
    record, at = b"", _HEADER
    while at + _HEADER <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        part = content[at + _HEADER : at + _HEADER + length]
        record = part if kind in (1, 2) else record + part  # whole or first; middle or last
        if kind in (1, 4):
            yield from inside(place, record)
        at += _HEADER + length
