from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_ndarray

from exporter.writers.tensorboard.events import (
    EventFile,
    frame,
    histogram_summary,
    image_summary,
)


@given(record=st.binary(max_size=300))
def test_the_framing_is_tensorboards_own(record: bytes) -> None:
    class Memory:
        content = b""

        def write(self, part: bytes) -> None:
            self.content += part

    memory = Memory()
    RecordWriter(memory).write(record)
    assert frame(record) == memory.content


def test_the_frame_of_an_empty_record_in_numbers() -> None:
    """crc32c of nothing is 0, masked 0xa282ead8."""
    framed = frame(b"")
    assert len(framed) == 16
    assert struct.unpack("<Q", framed[:8]) == (0,)
    assert struct.unpack("<I", framed[12:]) == (0xA282EAD8,)


@pytest.mark.parametrize("values", [np.arange(100.0), np.full(7, 3.0), np.zeros(0)])
def test_histograms_are_what_tensorboard_builds(values: np.ndarray) -> None:
    (expected,) = histogram_pb("a", values).value
    (own,) = histogram_summary("a", values).value
    assert own.metadata == expected.metadata
    assert np.allclose(make_ndarray(own.tensor), make_ndarray(expected.tensor))


def test_values_that_are_not_finite_are_not_counted() -> None:
    (value,) = histogram_summary("a", np.array([0.0, 1.0, np.nan, np.inf])).value
    assert make_ndarray(value.tensor)[:, 2].sum() == 2


def test_the_same_summaries_give_the_same_file(tmp_path: Path) -> None:
    def content(folder: Path) -> bytes:
        with EventFile(folder, 12.5, 3) as file:
            file.add(image_summary("a/b", [b"one", b"two"], (4, 5), title="t"))
            assert file.count == 1
        (only,) = folder.iterdir()
        assert "tfevents" in only.name
        return only.read_bytes()

    assert content(tmp_path / "one") == content(tmp_path / "two")
