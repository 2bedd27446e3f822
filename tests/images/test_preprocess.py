from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.models import ResNet50_Weights
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms import functional as F

from exporter.errors import ImageError
from exporter.images.decode import decode
from exporter.images.preprocess import geometry_axes, normalise, prepare
from exporter.records import Preprocessing

IMAGENET = Preprocessing((224, 224), 256)
LITE = Preprocessing((224, 224), 256, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
SIZES = [
    *[
        (300, 451),
        (500, 333),
        (256, 256),
        (224, 224),
        (100, 80),
        (257, 256),
        (900, 700),
        (233, 512),
    ],
    *[(1, 1), (1, 700), (700, 1), (30, 900)],
    *(pytest.param(size, marks=pytest.mark.slow) for size in ((900, 30), (5, 2000), (2000, 5))),
]


def pictures(size: tuple[int, int], photos: Path) -> list[np.ndarray]:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    coffee = Image.open(photos / "coffee.jpg").resize(size[::-1])
    return [noise, np.asarray(coffee)]


def levels(difference: torch.Tensor, preprocessing: Preprocessing) -> float:
    """Largest difference of two inputs in levels of 255."""
    std = torch.tensor(preprocessing.std)[:, None, None]
    return float((difference * std).abs().max()) * 255


def as_input(pixels: np.ndarray, preprocessing: Preprocessing) -> torch.Tensor:
    view, _ = prepare(pixels, preprocessing)
    return normalise(torch.from_numpy(view)[None], preprocessing)[0]


@pytest.mark.parametrize("size", SIZES)
def test_input_is_torchvisions_within_two_levels(size: tuple[int, int], photos: Path) -> None:
    transform = ResNet50_Weights.IMAGENET1K_V1.transforms()
    for pixels in pictures(size, photos):
        expected = transform(Image.fromarray(pixels))
        assert levels(as_input(pixels, IMAGENET) - expected, IMAGENET) <= 2.001


@pytest.fixture(scope="module")
def timm_transform() -> Callable[[Image.Image], torch.Tensor]:
    timm = pytest.importorskip("timm")
    settings = timm.get_pretrained_cfg("tf_efficientnet_lite0").to_dict()
    transform: Any = timm.data.create_transform(
        **timm.data.resolve_data_config({}, pretrained_cfg=settings)
    )
    return transform


@pytest.mark.parametrize("size", SIZES)
def test_input_is_timms_within_two_levels(
    size: tuple[int, int], photos: Path, timm_transform: Callable[[Image.Image], torch.Tensor]
) -> None:
    for pixels in pictures(size, photos):
        expected = timm_transform(Image.fromarray(pixels))
        assert levels(as_input(pixels, LITE) - expected, LITE) <= 2.001


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("mode", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
def test_a_whole_picture_is_resized_to_torchvisions_bits_without_importing_it(
    mode: InterpolationMode, antialias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Preprocessing((90, 70), (90, 70), interpolation=mode.value, antialias=antialias)
    for height, width in ((60, 50), (33, 7), (100, 75), (1, 1)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        source = torch.from_numpy(pixels).permute(2, 0, 1)
        expected = v2.functional.resize(source, [90, 70], mode, antialias=antialias)
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "torchvision", None)
            view, _ = prepare(pixels, steps)
        assert np.array_equal(view, expected.permute(1, 2, 0))


def test_inputs_of_the_photographs_are_torchvisions(photos: Path) -> None:
    transform = ResNet50_Weights.IMAGENET1K_V2.transforms()
    v2 = Preprocessing((224, 224), 232)
    for file in photos.glob("*.jpg"):
        actual = as_input(decode(file.read_bytes()), v2)
        expected = transform(Image.open(file).convert("RGB"))
        assert levels(actual - expected, v2) <= 2.001


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("preprocessing", "transform"),
    [
        (
            Preprocessing((160, 224), 200, interpolation="nearest"),
            lambda image: F.center_crop(
                F.resize(image, 200, InterpolationMode.NEAREST), [160, 224]
            ),
        ),
        (
            Preprocessing((97, 63), (97, 63), crop="none"),
            lambda image: F.resize(image, [97, 63], InterpolationMode.BILINEAR),
        ),
        (
            Preprocessing((225, 160), 64),
            lambda image: F.center_crop(F.resize(image, 64), [225, 160]),
        ),
        (Preprocessing((224, 161), None), lambda image: F.center_crop(image, [224, 161])),
        (
            Preprocessing((64, 64), 72, channels=1, mean=(0.5,), std=(0.5,)),
            lambda image: F.center_crop(F.resize(F.rgb_to_grayscale(image), 72), [64, 64]),
        ),
        (
            Preprocessing((64, 64), 72, antialias=False),
            lambda image: F.to_pil_image(
                F.center_crop(F.resize(F.pil_to_tensor(image), 72, antialias=False), [64, 64])
            ),
        ),
    ],
    ids=["nearest", "exact", "padded", "unresized", "grey", "no antialias"],
)
def test_views_are_torchvisions_within_two_levels(
    size: tuple[int, int], preprocessing: Preprocessing, transform: Any, photos: Path
) -> None:
    for pixels in pictures(size, photos):
        view, _ = prepare(pixels, preprocessing)
        expected = np.asarray(transform(Image.fromarray(pixels)))
        assert view.shape == (*preprocessing.size, preprocessing.channels)
        assert view.dtype == np.uint8
        assert view.flags.c_contiguous
        gap = np.abs(view.astype(int) - expected.reshape(view.shape)).max()
        assert gap <= (0 if preprocessing.interpolation == "nearest" else 2)


def test_grey_pixels_serve_a_colour_model() -> None:
    view, _ = prepare(np.full((30, 40), 9, np.uint8), Preprocessing((16, 16), 20))
    assert view.shape == (16, 16, 3)
    assert (view == 9).all()


def test_geometry_of_a_landscape_photograph() -> None:
    _, geometry = prepare(np.zeros((300, 450, 3), np.uint8), IMAGENET)
    # 300 × 450 becomes 256 × 384; the crop is columns 80 to 304 and rows 16 to 240 of that.
    assert (geometry.width, geometry.height) == (450, 300)
    assert geometry.crop == pytest.approx((93.75, 18.75, 356.25, 281.25))


def test_geometry_of_a_padded_photograph_reaches_beyond_it() -> None:
    view, geometry = prepare(np.full((10, 20, 3), 255, np.uint8), Preprocessing((14, 21), None))
    assert geometry.crop == (0, -2, 21, 12)
    assert (view[2:12, :20] == 255).all()
    assert view.sum() == 10 * 20 * 3 * 255


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    size=st.tuples(st.integers(1, 96), st.integers(1, 96)),
    resize=st.one_of(
        st.none(), st.integers(1, 128), st.tuples(st.integers(1, 128), st.integers(1, 128))
    ),
)
def test_crop_maps_the_views_corners_to_original_pixels(
    height: int, width: int, size: tuple[int, int], resize: int | tuple[int, int] | None
) -> None:
    # Red is the column and green the row: nearest shows which original pixel each view pixel is.
    scale = 255 / 400
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, 0] = (np.arange(width) * scale)[None, :]
    pixels[:, :, 1] = (np.arange(height) * scale)[:, None]
    pixels[:, :, 2] = 255
    view, geometry = prepare(pixels, Preprocessing(size, resize, interpolation="nearest"))
    left, top, right, bottom = geometry.crop
    for row in {0, size[0] // 2, size[0] - 1}:
        for column in {0, size[1] // 2, size[1] - 1}:
            x = left + (column + 0.5) / size[1] * (right - left)
            y = top + (row + 0.5) / size[0] * (bottom - top)
            outside = not (0 < x < width and 0 < y < height)
            assert (view[row, column, 2] == 0) == outside
            if not outside:
                # Half a pixel of rounding, and truncated levels.
                assert abs(view[row, column, 0] - int(x) * scale) <= scale + 1
                assert abs(view[row, column, 1] - int(y) * scale) <= scale + 1


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 600), st.integers(1, 600))
def test_the_crops_centre_is_the_photographs_within_a_resized_pixel(
    height: int, width: int, resize: int, view: int
) -> None:
    rows, columns = geometry_axes(height, width, Preprocessing((view, view), resize))
    for axis in (rows, columns):
        assert abs(sum(axis.ends) / 2 - axis.source / 2) <= 0.5 * axis.scale + 1e-6
        assert axis.first < axis.last
        assert axis.ends[1] - axis.ends[0] == pytest.approx(view * axis.scale)


def test_a_view_of_another_size_than_the_models_is_an_error() -> None:
    with pytest.raises(ImageError, match="341 × 256"):
        prepare(np.zeros((300, 400, 3), np.uint8), Preprocessing((256, 256), 256, crop="none"))


def test_a_model_of_five_channels_needs_five_bands() -> None:
    with pytest.raises(ImageError, match="3 bands and the model takes 5 channels"):
        prepare(np.zeros((3, 4, 3), np.uint8), Preprocessing((2, 2), 2, channels=5))


def test_bands_are_resized_as_photographs_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    for interpolation in ("nearest", "bilinear", "bicubic"):
        steps = Preprocessing((16, 24), 20, interpolation=interpolation)
        expected, where = prepare(pixels, steps)
        five = np.concatenate([pixels, pixels[:, :, :2]], axis=2).astype(np.float32) / 255
        view, geometry = prepare(five, replace(steps, channels=5))
        assert geometry == where
        assert view.dtype == np.float32
        assert 0 <= view.min() <= view.max() <= 1
        for band in range(5):
            assert np.abs(view[:, :, band] * 255 - expected[:, :, band % 3]).max() <= 1.01


def test_a_thin_photograph_is_not_resized_whole() -> None:
    # 2 × 60,000 pixels resized to a shorter side of 256 would be 6 gigabytes.
    view, _ = prepare(np.full((2, 60_000, 3), 7, np.uint8), IMAGENET)
    assert (view == 7).all()
    with pytest.raises(ImageError, match="at most"):
        prepare(np.zeros((2, 60_000, 3), np.uint8), Preprocessing((224, 224), 256, antialias=False))


def test_read_only_pixels_are_not_changed() -> None:
    pixels = np.full((50, 60, 3), 5, np.uint8)
    pixels.flags.writeable = False
    prepare(pixels, IMAGENET)
    assert (pixels == 5).all()


def test_normalise_is_torchvisions() -> None:
    views = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).reshape(2, 4, 5, 3)
    expected = F.normalize(views.permute(0, 3, 1, 2) / 255, list(IMAGENET.mean), list(IMAGENET.std))
    actual = normalise(views, IMAGENET)
    assert actual.dtype == torch.float32
    assert actual.shape == (2, 3, 4, 5)
    assert actual.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    planar = views.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(normalise(planar, IMAGENET), actual)


def test_normalise_of_grey_views() -> None:
    grey = Preprocessing((4, 5), None, channels=1, mean=(0.5,), std=(0.25,))
    views = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 2, 1)
    torch.testing.assert_close(normalise(views, grey), torch.tensor([[[[-2.0, 2.0]]]]))


def test_normalise_never_waits_for_the_device() -> None:
    # The meta device refuses whatever would make an accelerator wait.
    views = torch.empty((2, 4, 5, 3), dtype=torch.uint8, device="meta")
    assert normalise(views, IMAGENET).device.type == "meta"
    assert normalise(views, IMAGENET).shape == (2, 3, 4, 5)


def test_normalise_after_inference_mode_can_be_differentiated() -> None:
    odd = Preprocessing((3, 3), None, mean=(0.1,) * 3, std=(0.7,) * 3)
    views = torch.ones((1, 3, 3, 3), dtype=torch.uint8)
    with torch.inference_mode():
        normalise(views, odd)
    weight = torch.ones(3, requires_grad=True)
    (normalise(views, odd) * weight[:, None, None]).sum().backward()
    assert weight.grad is not None


def test_normalise_says_which_constants_are_missing() -> None:
    with pytest.raises(ImageError, match="mean has 3 values"):
        normalise(torch.zeros((1, 2, 2, 1), dtype=torch.uint8), IMAGENET)


def test_importing_and_opening_needs_no_torch(photos: Path) -> None:
    code = (
        "import sys; from exporter.images import open_images; "
        f"open_images({str(photos)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
