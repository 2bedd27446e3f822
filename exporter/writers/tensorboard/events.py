"""TensorBoard event files: the record framing and the summaries, without TensorFlow.

The pure-Python checksum of TensorBoard's own ``RecordWriter`` runs at about 5 MB/s and holds the
GIL; google-crc32c does the same at memory speed, so a record costs what its bytes cost.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MASK = 0xA282EAD8
_STRING = 7
"""``DT_STRING`` of TensorFlow's types.proto."""

BUCKETS = 30


def frame(record: bytes) -> bytes:
    """Return one TFRecord: u64 length, its masked crc32c, the bytes, their masked crc32c."""
    import google_crc32c

    length = struct.pack("<Q", len(record))
    return b"".join(
        (
            length,
            struct.pack("<I", _masked(google_crc32c.value(length))),
            record,
            struct.pack("<I", _masked(google_crc32c.value(record))),
        )
    )


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


class EventFile:
    """One event file; the same summaries at the same wall time give the same bytes.

    Attributes:
        count: summaries written.
    """

    def __init__(self, folder: Path, wall_time: float, step: int) -> None:
        """Create the folder and the file, and write the version record.

        Args:
            folder: the folder of one TensorBoard run.
            wall_time: seconds since 1970, stamped on every event.
            step: step of every summary.
        """
        from tensorboard.compat.proto.event_pb2 import Event

        self._event = Event
        self._wall_time = wall_time
        self._step = step
        self.count = 0
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(wall_time):010d}.exporter"
        # A megabyte, because a summary of three pictures is larger than the usual buffer.
        self._file = (folder / name).open("wb", buffering=1 << 20)
        self._file.write(
            frame(Event(wall_time=wall_time, file_version="brain.Event:2").SerializeToString())
        )

    def event(self, value: Any) -> bytes:
        """Return a framed event of one summary value; safe in several threads."""
        event = self._event(wall_time=self._wall_time, step=self._step)
        event.summary.value.append(value)
        return frame(event.SerializeToString())

    def write(self, framed: bytes) -> None:
        """Append what `event` made."""
        self._file.write(framed)
        self.count += 1

    def add(self, value: Any) -> None:
        """Append one summary value."""
        self.write(self.event(value))

    def __enter__(self) -> EventFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def image_value(
    tag: str,
    pictures: Sequence[bytes],
    size: tuple[int, int],
    *,
    title: str = "",
    description: str = "",
) -> Any:
    """Return an image summary in the tensor form, which keeps title and description.

    Args:
        tag: its tag; cards group by what is before the first slash.
        pictures: the samples, each encoded as JPEG or PNG, kept byte for byte.
        size: (width, height) of the first, in pixels.
        title: what the card shows in place of the tag.
        description: Markdown under the card's information sign.

    Returns:
        A ``Summary.Value``.
    """
    from tensorboard.plugins.image.metadata import create_summary_metadata

    strings = [b"%d" % size[0], b"%d" % size[1], *pictures]
    metadata = create_summary_metadata(display_name=title, description=description)
    return _value(tag, metadata, _strings(strings, (len(strings),)))


def text_value(tag: str, markdown: str, *, description: str = "") -> Any:
    """Return a text summary; the text is Markdown, links are kept where they are http(s)."""
    from tensorboard.plugins.text.metadata import create_summary_metadata

    metadata = create_summary_metadata(display_name="", description=description)
    return _value(tag, metadata, _strings([markdown.encode("utf-8", "replace")], ()))


def scalar_value(tag: str, number: float, *, description: str = "") -> Any:
    """Return a scalar summary (float32)."""
    from tensorboard.plugins.scalar.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    metadata = create_summary_metadata(display_name="", description=description)
    return _value(tag, metadata, make_tensor_proto(np.float32(number)))


def histogram_value(tag: str, values: NDArray[np.floating], *, description: str = "") -> Any:
    """Return a histogram summary of 30 buckets between the smallest and the largest finite value.

    Where every value is the same, all of them are in the last bucket, as TensorBoard does.
    """
    from tensorboard.plugins.histogram.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    own = np.asarray(values, dtype=np.float64).ravel()
    own = own[np.isfinite(own)]
    counts, edges = np.zeros(BUCKETS), np.zeros(BUCKETS + 1)
    if own.size and own.min() == own.max():
        counts[-1], edges[:] = own.size, own[0]
    elif own.size:
        whole, edges = np.histogram(own, bins=BUCKETS)
        counts = whole.astype(np.float64)
    buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
    metadata = create_summary_metadata(display_name="", description=description)
    return _value(tag, metadata, make_tensor_proto(buckets, dtype=np.float64))


def _value(tag: str, metadata: Any, tensor: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def _strings(strings: Sequence[bytes], shape: tuple[int, ...]) -> Any:
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

    dimensions = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in shape])
    return TensorProto(dtype=_STRING, tensor_shape=dimensions, string_val=strings)
