"""TensorBoard event files: the record framing and the summaries, without TensorFlow.

The pure-Python checksum of TensorBoard's own ``RecordWriter`` runs at about 5 MB/s and holds the
GIL; google-crc32c does the same at memory speed, so a record costs what its bytes cost. TensorBoard
itself makes scalars and texts. Its own histogram takes 30 values of memory for each value.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BUCKETS = 30


def frame(record: bytes) -> bytes:
    """Return one TFRecord: u64 length, its masked crc32c, the bytes, their masked crc32c."""
    import google_crc32c

    def checksum(part: bytes) -> bytes:
        crc = google_crc32c.value(part)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(record))
    return b"".join((length, checksum(length), record, checksum(record)))


class EventFile(closing[Any]):
    """One event file; the same summaries at the same wall time give the same bytes.

    Attributes:
        count: summaries written.
    """

    def __init__(self, folder: Path, wall_time: float, step: int, mark: str = "0") -> None:
        """Create the folder and the file, and write the version record.

        Args:
            folder: the folder of one TensorBoard run.
            wall_time: seconds since 1970, stamped on every event.
            step: step of every summary; files are named in its order, in which servers read them.
            mark: tells files of the same step apart.
        """
        from tensorboard.compat.proto.event_pb2 import Event

        self._event = Event
        self._stamp = {"wall_time": wall_time, "step": step}
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{step:010d}.{mark}.exporter"
        # A megabyte, because a summary of three pictures is larger than the usual buffer.
        self._file = (folder / name).open("wb", buffering=1 << 20)
        super().__init__(self._file)
        version = Event(wall_time=wall_time, file_version="brain.Event:2")
        self._file.write(frame(version.SerializeToString()))
        self.count = 0

    def event(self, summary: Any) -> bytes:
        """Return a framed event of one summary; safe in several threads."""
        return frame(self._event(summary=summary, **self._stamp).SerializeToString())

    def write(self, framed: bytes) -> None:
        """Append what `event` returned."""
        self._file.write(framed)
        self.count += 1

    def add(self, summary: Any) -> None:
        """Append one summary."""
        self.write(self.event(summary))

    def __enter__(self) -> EventFile:
        return self


def image_summary(
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
    """
    from tensorboard.plugins.image.metadata import create_summary_metadata

    strings = np.array([b"%d" % size[0], b"%d" % size[1], *pictures], dtype=object)
    return tensor_summary(tag, create_summary_metadata(title, description), strings)


def histogram_summary(tag: str, values: NDArray[np.floating], description: str = "") -> Any:
    """Return a histogram summary of 30 buckets between the smallest and the largest finite value.

    Where every value is the same, all of them are in the last bucket, as TensorBoard does.
    """
    from tensorboard.plugins.histogram.metadata import create_summary_metadata

    own = np.asarray(values, dtype=np.float64).ravel()
    own = own[np.isfinite(own)]
    counts, edges = np.zeros(BUCKETS), np.zeros(BUCKETS + 1)
    if own.size and own.min() == own.max():
        counts[-1], edges[:] = own.size, own[0]
    elif own.size:
        whole, edges = np.histogram(own, bins=BUCKETS)
        counts = whole.astype(np.float64)
    buckets = np.stack([edges[:-1], edges[1:], counts], axis=1)
    return tensor_summary(tag, create_summary_metadata("", description), buckets)


def tensor_summary(tag: str, metadata: Any, values: NDArray[Any]) -> Any:
    """Return a summary of values, in the form that the metadata's plugin reads."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.util.tensor_util import make_tensor_proto

    tensor = make_tensor_proto(values, dtype=values.dtype)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])
