"""DICOM files: rescaled, windowed, and named where they cannot be read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from exporter.errors import ImageError
from exporter.images import open_images
from exporter.images.decode import decode, decode_bands
from exporter.records import Preprocessing

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid  # noqa: E402

STORED = np.arange(0, 4096, 64, dtype=np.uint16).reshape(4, 16)


def dicom(values: np.ndarray = STORED, syntax: str = ExplicitVRLittleEndian, **tags: Any) -> bytes:
    """Write a DICOM file; a tag that is None is left out."""
    dataset = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=bytes(128))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    deep = values.dtype.itemsize == 2
    usual = {
        "Rows": values.shape[0], "Columns": values.shape[1], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16 if deep else 8,
        "BitsStored": 12 if deep else 8, "HighBit": 11 if deep else 7,
        "PixelRepresentation": int(values.dtype.kind == "i"), "PixelData": values.tobytes(),
    }  # fmt: skip
    for name, value in (usual | tags).items():
        if value is not None:
            setattr(dataset, name, value)
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


WINDOWED = dicom(WindowCenter=40, WindowWidth=400, RescaleSlope=1, RescaleIntercept=-1024)


def grey(content: bytes) -> np.ndarray:
    pixels = decode(content)
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[:, :, 0]


def levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return ((values.astype(float) - low) / (high - low)).clip(0, 1) * 255


@pytest.mark.parametrize(
    ("tags", "low", "high"),
    [
        ({}, 0, 4095),
        # PS3.3 C.11.2.1.2.1: x <= c - 0.5 - (w - 1) / 2 is black, x > c - 0.5 + (w - 1) / 2 white.
        ({"WindowCenter": 2048, "WindowWidth": 1001}, 1547.5, 2547.5),
        ({"WindowCenter": [2048, 40], "WindowWidth": [1001, 80]}, 1547.5, 2547.5),
        (
            {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"},
            1500,
            2500,
        ),
        ({"WindowCenter": 2048, "WindowWidth": 0}, 0, 4095),
    ],
)
def test_the_window_of_the_header_is_black_and_white(
    tags: dict[str, Any], low: float, high: float
) -> None:
    expected = levels(STORED, low, high)
    assert np.abs(grey(dicom(**tags)) - expected).max() <= 0.51
    inverted = grey(dicom(PhotometricInterpretation="MONOCHROME1", **tags))
    assert np.abs(inverted - (255 - expected)).max() <= 0.51


def test_numbers_are_rescaled_before_the_window() -> None:
    ct = {"RescaleSlope": 2, "RescaleIntercept": -1024}
    hounsfield = STORED * 2.0 - 1024
    windowed = dicom(**ct, WindowCenter=40, WindowWidth=400)
    assert np.abs(grey(windowed) - levels(hounsfield, -160, 239)).max() <= 0.51
    assert np.abs(grey(dicom(**ct)) - levels(hounsfield, -1024, 4095 * 2 - 1024)).max() <= 0.51
    signed = dicom((STORED - 2048).astype(np.int16))
    assert np.abs(grey(signed) - levels(STORED, 0, 4095)).max() <= 0.51


def test_a_stated_range_is_in_rescaled_numbers_and_stands_over_the_window() -> None:
    content = dicom(RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=80)
    steps = Preprocessing((4, 16), None, range=(-1000.0, 400.0))
    unit = decode_bands(content, steps)
    assert np.allclose(unit[:, :, 0], levels(STORED - 1024.0, -1000, 400) / 255, atol=1e-6)


def test_a_sigmoid_and_a_table_are_applied() -> None:
    sigmoid = dicom(WindowCenter=2048, WindowWidth=1024, VOILUTFunction="SIGMOID")
    expected = 255 / (1 + np.exp(-4 * (STORED - 2048.0) / 1024))
    assert np.abs(grey(sigmoid) - expected).max() <= 0.51
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table.add_new("LUTData", "OW", np.arange(4095, -1, -1, dtype=np.uint16).tobytes())
    voi = dicom(VOILUTSequence=[table])
    assert np.abs(grey(voi) - (255 - levels(STORED, 0, 4095))).max() <= 0.51


def test_colours_are_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    content = dicom(
        pixels, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0
    )
    assert (decode(content) == pixels).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_numbers_of_a_palette_are_its_colours(bits: int) -> None:
    numbers = np.random.default_rng(0).integers(0, 256, (4, 6), dtype=np.uint8)
    ramps = [np.arange(256), 255 - np.arange(256), (3 * np.arange(256)) % 256]
    kind, full = ("u1", 1) if bits == 8 else ("<u2", 257)
    tables = {
        f"{colour}PaletteColorLookupTable{end}": value
        for colour, ramp in zip(("Red", "Green", "Blue"), ramps, strict=True)
        for end, value in (
            ("Descriptor", [256, 0, bits]),
            ("Data", (full * ramp).astype(kind).tobytes()),
        )
    }
    pixels = decode(dicom(numbers, PhotometricInterpretation="PALETTE COLOR", **tables))
    assert (pixels == np.stack([ramp[numbers] for ramp in ramps], 2)).all()


def test_compressed_pixels_are_read(encode: Callable[..., bytes]) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit, RLELossless

    plain = pydicom.dcmread(BytesIO(dicom()))
    plain.compress(RLELossless)
    file = BytesIO()
    plain.save_as(file)
    assert (grey(file.getvalue()) == grey(dicom())).all()
    values = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    coded = encapsulate([encode(Image.fromarray(values), "JPEG", quality=95)])
    lossy = dicom(values, JPEGBaseline8Bit, PixelData=coded)
    assert np.abs(grey(lossy).astype(int) - values).max() <= 4


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"NumberOfFrames": 30}, "has 30 frames; save one frame per file"),
        ({"PixelData": None}, "holds no picture: it is CT Image Storage"),
        ({"PhotometricInterpretation": "CMYK"}, "pixels are CMYK; MONOCHROME1"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "damaged or truncated"),
        ({"Rows": 60_000, "Columns": 60_000}, "60,000 × 60,000 pixels; at most"),
        ({"PixelData": STORED.tobytes()[:-20]}, "damaged or truncated"),
    ],
)
def test_what_cannot_be_read_is_named(tags: dict[str, Any], said: str) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        decode(dicom(**tags))
    assert "\n" not in str(caught.value)


def test_other_compressions_are_named() -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import MPEG2MPML, DeflatedExplicitVRLittleEndian, JPEGLSLossless

    coded = {"PixelData": encapsulate([bytes(20)])}
    for syntax, said in (
        (MPEG2MPML, "MPEG2 Main Profile / Main Level, which is not read"),
        (JPEGLSLossless, r"JPEG-LS Lossless.*install 'pylibjpeg\[all\]'"),
    ):
        with pytest.raises(ImageError, match=said):
            decode(dicom(syntax=syntax, **coded))
    with pytest.raises(ImageError, match="deflated as a whole"):
        decode(dicom(syntax=DeflatedExplicitVRLittleEndian))


def test_without_pydicom_it_is_a_dicom_file_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    content = dicom()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"is a DICOM file; install exporter\[dicom\] to read it"):
        decode(content)


@given(changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4))
@settings(max_examples=60)
def test_any_change_of_bytes_gives_a_picture_or_one_sentence(
    changes: list[tuple[float, int]],
) -> None:
    content = bytearray(WINDOWED)
    for place, value in changes:
        content[132 + int(place * 600)] = value
    try:
        pixels = decode(bytes(content))
    except ImageError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
    else:
        assert (pixels.dtype, pixels.ndim) == (np.uint8, 3)


def test_a_folder_of_slices_is_a_set(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom(WindowCenter=2048, WindowWidth=1001))
    (tmp_path / "b.DCM").write_bytes(dicom(NumberOfFrames=2))
    images = open_images(tmp_path)
    steps = Preprocessing((4, 16), None)
    images.settle(steps)
    images.load_first(steps)
    assert images.notes == (
        "DICOM files are shown with the window of their header, or the whole range of their bits",
    )
    with pytest.raises(ImageError, match="2 frames"):
        images.load(images.entries[1], steps)
