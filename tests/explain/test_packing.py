from __future__ import annotations

import numpy as np
import torch

from exporter.containers import tensors
from exporter.explain.batches import pack, unpack


def test_every_type_and_shape_comes_back_aligned_from_one_buffer() -> None:
    contents = (
        torch.tensor([True, False, True]),
        {"levels": torch.tensor([[0, 32767, 65535]], dtype=torch.int32).to(torch.int16)},
        torch.arange(5, dtype=torch.uint8),
        torch.tensor([[1.5, float("nan")], [-0.0, 3e38]]),
        torch.tensor([-1, 2**31 - 1], dtype=torch.int32),
        torch.empty(0, 4),
        torch.arange(6.0).reshape(2, 3).t(),
        "text",
    )
    outline, buffer = pack(contents)
    assert buffer.dtype == torch.uint8
    assert buffer.ndim == 1
    assert {tensor.device.type for tensor in tensors(outline).values()} == {"meta"}
    flags, named, small, floats, wide, empty, turned, text = unpack(outline, buffer.numpy())
    assert flags.tolist() == [True, False, True]
    assert named["levels"].dtype == np.uint16
    assert named["levels"].tolist() == [[0, 32767, 65535]]
    assert small.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(floats, contents[3].numpy())
    assert wide.tolist() == [-1, 2**31 - 1]
    assert empty.shape == (0, 4)
    np.testing.assert_array_equal(turned, contents[6].numpy())
    assert text == "text"
    for array in (flags, named["levels"], small, floats, wide, turned):
        assert array.flags.aligned
        assert np.shares_memory(array, buffer.numpy())


def test_one_value_cut_out_of_a_row_is_packed_like_any_other() -> None:
    one = torch.arange(4.0).reshape(1, 4)[:, 2]
    outline, buffer = pack({"one": torch.full_like(one, 7.0)})
    found = unpack(outline, buffer.numpy())
    assert found["one"].tolist() == [7.0]
