"""The offline log's framing and the names in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.writers.wandb.log import (StagedFile, read_log, rename_staged, run_files, staged_files, write_log)


@given(st.lists(st.integers(0, 70_000), max_size=6))
def test_records_of_any_length_come_back(lengths: list[int]) -> None:
    records = [bytes([n % 251]) * length for n, length in enumerate(lengths, start=1)]
    assert list(read_log(write_log(records))) == records


@pytest.mark.parametrize("room", range(9))
def test_a_record_at_the_end_of_a_block(room: int) -> None:
    records = [b"x" * (32_768 - 7 - 7 - room), b"", b"y" * 40_000]
    assert list(read_log(write_log(records))) == records


def test_damage_is_found() -> None:
    log = bytearray(write_log([b"some record", b"another"]))
    log[20] ^= 1
    with pytest.raises(ValueError, match="damaged at byte 7"):
        list(read_log(bytes(log)))
    with pytest.raises(ValueError, match="cut"):
        list(read_log(write_log([b"some record"]) + b"\0"))
    with pytest.raises(ValueError, match="begin"):
        list(read_log(b"PK\3\4 and more"))


@settings(deadline=None)  # the first imports W&B
@given(
    st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1), st.integers(1, 2**40)), max_size=5)
)
def test_names_are_read_and_changed_as_wandb_reads_them(
    entries: list[tuple[str, str, int]],
) -> None:
    from wandb.proto import wandb_internal_pb2 as protocol

    record = protocol.Record(num=3)
    record.artifact.name = "run-x-images"
    record._info.stream_id = "x"
    for path, local, size in entries:
        record.artifact.manifest.contents.add(path=path, local_path=local, size=size, digest="d")
    encoded = record.SerializeToString()

    assert staged_files(encoded) == tuple(StagedFile(*entry) for entry in entries)
    changed = protocol.Record.FromString(
        rename_staged(encoded, lambda staged: f"here/{Path(staged.local).name}·")
    )
    for entry, (_, local, _) in zip(changed.artifact.manifest.contents, entries, strict=True):
        assert entry.local_path == f"here/{Path(local).name}·"
    for entry in record.artifact.manifest.contents:
        entry.local_path = ""
    for entry in changed.artifact.manifest.contents:
        entry.local_path = ""
    assert changed == record


def test_other_records_are_left_as_they_are() -> None:
    from wandb.proto import wandb_internal_pb2 as protocol

    record = protocol.Record(num=1)
    record.files.files.add(path="media/table/images.table.json")
    encoded = record.SerializeToString()
    assert run_files(encoded) == ("media/table/images.table.json",)
    assert staged_files(encoded) == ()
    assert rename_staged(encoded, lambda staged: "never") == encoded

    large = protocol.Record()
    large.artifact.manifest.manifest_file_path = "/somewhere/else.jl.gz"
    with pytest.raises(ValueError, match="too many files"):
        rename_staged(large.SerializeToString(), lambda staged: "never")
