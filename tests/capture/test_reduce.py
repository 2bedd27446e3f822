from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exporter.capture import (
    channel_statistics,
    magnitudes,
    quantise,
    reduce,
    strongest_channels,
)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "shape", [(3, 5, 4, 7), (1, 1, 1, 1), (2, 70, 3, 4), (2, 3, 1, 1), (0, 2, 3, 3)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_statistics_are_the_plain_reductions(
    layout: torch.memory_format, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    values = torch.randn(shape).relu().to(dtype).contiguous(memory_format=layout)
    got = channel_statistics(values)
    flat = values.float().flatten(2)
    torch.testing.assert_close(got.mean, flat.mean(2))
    assert torch.equal(got.zeros, (flat == 0).float().mean(2))
    if len(values):
        assert torch.equal(got.maximum, flat.amax(2))
        assert torch.equal(got.place.long(), flat.argmax(2))
    assert got.place.dtype == torch.int32
    assert (got.height, got.width) == shape[2:]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (2, 70, 3, 4), (0, 2, 3, 3)])
@pytest.mark.parametrize("chunk", [1, 1 << 18])
def test_magnitudes_are_norms(
    layout: torch.memory_format, shape: tuple[int, ...], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reduce, "_CHUNK", chunk)
    torch.manual_seed(0)
    values = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout)
    largest, mean = (magnitudes(values, each) for each in (torch.amax, torch.mean))
    assert torch.equal(largest, torch.linalg.vector_norm(values, torch.inf, dim=(2, 3)))
    cells = shape[2] * shape[3]
    torch.testing.assert_close(mean, torch.linalg.vector_norm(values, 1, dim=(2, 3)) / cells)


def test_it_is_the_same_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(5, 6, 3, 4, generator=torch.Generator().manual_seed(1)).relu()
    whole = channel_statistics(values)
    monkeypatch.setattr(reduce, "_CHUNK", 1)
    cut = channel_statistics(values)
    for name in ("mean", "maximum", "zeros", "place"):
        assert torch.equal(getattr(whole, name), getattr(cut, name))


def test_a_dead_channel_is_all_zeros_and_its_place_is_the_first() -> None:
    got = channel_statistics(torch.zeros(1, 2, 3, 3))
    assert got.zeros.tolist() == [[1, 1]]
    assert got.place.tolist() == [[0, 0]]


def test_a_channel_that_is_not_finite_stays_inside_the_grid() -> None:
    values = torch.zeros(1, 2, 2, 2)
    values[0, 0, 1, 1] = torch.nan
    values[0, 1, 1, 0] = torch.inf
    got = channel_statistics(values)
    assert got.maximum.isnan().tolist() == [[True, False]]
    assert 0 <= got.place[0, 0] < 4
    assert got.place[0, 1] == 2


def test_the_strongest_channels_come_back_within_half_a_level() -> None:
    values = torch.randn(2, 6, 3, 5, generator=torch.Generator().manual_seed(2))
    mean = values.mean((2, 3))
    got = strongest_channels(values, mean, 4)
    assert torch.equal(got.channels.long(), mean.argsort(1, descending=True)[:, :4])
    lo, hi = got.lo[:, :, None, None], got.hi[:, :, None, None]
    for n in range(2):
        kept = values[n, got.channels[n].long()]
        back = lo[n] + got.levels[n] * (hi[n] - lo[n]) / 255
        assert ((back - kept).abs() <= (hi[n] - lo[n]) / 509).all()
    assert strongest_channels(values, mean, 99).levels.shape == (2, 6, 3, 5)


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=12)
)
def test_levels_give_the_values_back(numbers: list[float]) -> None:
    values = torch.tensor(numbers, dtype=torch.float32).reshape(1, 1, -1)
    lo, hi, levels = quantise(values, 65535)
    assert levels.min() >= 0
    assert levels.max() <= 65535
    span = hi.double() - lo.double()
    back = lo.double() + levels.double() * span / 65535
    # Half a level, and what float32 rounds away in the shares: less than another fiftieth.
    assert ((back - values.double()).abs() <= span * 0.52 / 65535 + 3e-45).all()


def test_constant_and_not_finite_grids_have_level_zero() -> None:
    values = torch.tensor([[7.0, 7.0], [torch.nan, 1.0], [torch.inf, 1.0], [-torch.inf, 1.0]])
    lo, hi, levels = quantise(values[:, None], 65535)
    assert levels.abs().sum() == 0
    assert lo[0] == hi[0] == 7
    assert lo[1:].isnan().all()
    assert hi[1:].isnan().all()
