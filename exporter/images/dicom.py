"""Pictures of DICOM files, read by pydicom."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.errors import ImageError
from exporter.images.bands import Bands, refuse_size

_GREY, _COLOUR = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422")
_PALETTE = "PALETTE COLOR"
_READ = (*_GREY, *_COLOUR, "YBR_RCT", "YBR_ICT", _PALETTE)
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META = 2_000
_SHOWN = 120


def is_dicom(content: bytes) -> bool:
    """Say whether a file is a DICOM file."""
    return content[128:132] == b"DICM"


def read_dicom(content: bytes, *, windowed: bool = True) -> Bands:
    """Read the picture of a DICOM file.

    Grey numbers are rescaled as the file says (slope and intercept, or a table), into Hounsfield
    units for a CT. If ``windowed``, black and white are those of its first window (DICOM PS3.3,
    C.11.2), or of its table of values of interest, else the lowest and highest number that its
    bits can hold.

    Raises:
        ImageError: if pydicom is not installed, or it holds no single picture that can be read.
    """
    try:
        import pydicom
        from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        raise ImageError("the file is a DICOM file; install exporter[dicom] to read it") from None
    # It would be unpacked whole, whatever its size, to read the first tag.
    if _DEFLATED in content[:_META]:
        raise ImageError("the DICOM file is deflated as a whole; save it in another syntax")
    dataset = pydicom.dcmread(BytesIO(content))
    _refuse_other(dataset)
    try:
        values = pixel_array(dataset)
    except RuntimeError as error:  # what every decoder said, each on a line
        syntax, said = (
            _name(dataset.file_meta.TransferSyntaxUID),
            str(error).splitlines()[-1].strip(),
        )
        raise ImageError(f"the DICOM file's {syntax} pixels cannot be decoded: {said}") from None
    if dataset.PhotometricInterpretation == _PALETTE:
        return Bands(apply_color_lut(values, dataset)[:, :, :3])
    if dataset.PhotometricInterpretation not in _GREY:
        return Bands(values)
    values = apply_modality_lut(values, dataset)
    window = None
    if windowed:
        values, window = _windowed(dataset, values)
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    return Bands(values[:, :, None], window, inverted)


def _refuse_other(dataset: Any) -> None:
    """Raise ``ImageError`` where it holds no picture, several, or one that cannot be read."""
    from pydicom.pixels.decoders.base import get_decoder

    if "PixelData" not in dataset:
        kind = _name(dataset.get("SOPClassUID"))
        raise ImageError(f"the DICOM file holds no picture{kind and f': it is {kind}'}")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ImageError(f"the DICOM file has {frames:,} frames; save one frame per file")
    refuse_size(dataset.Columns, dataset.Rows, dataset.SamplesPerPixel)
    kind = dataset.PhotometricInterpretation
    if kind not in _READ:
        raise ImageError(
            f"the DICOM file's pixels are {_name(kind)}; {', '.join(_READ[:3])}, {_PALETTE} and "
            "YBR are read"
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ImageError(
            f"the DICOM file is compressed as {_name(syntax)}, which is not read"
        ) from None
    if not decoder.is_available:
        raise ImageError(
            f"the DICOM file is compressed as {_name(syntax)}; install "
            "'pylibjpeg[all]' to read it, or save it uncompressed"
        )


def _windowed(
    dataset: Any, values: NDArray[Any]
) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Return the numbers to show, and which of them are black and white."""
    from pydicom.pixels.processing import apply_voi

    centre, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return apply_voi(values, dataset), (0.0, 2.0**bits - 1)
    if centre is not None and width is not None and width >= 1:
        if function == "SIGMOID":
            return 1 / (1 + np.exp(-4 * (values - centre) / width)), (0.0, 1.0)
        # A linear window of n levels has n - 1 steps; LINEAR_EXACT is as wide as it says.
        half = width / 2 if function == "LINEAR_EXACT" else max(width - 1, 1e-3) / 2
        middle = centre if function == "LINEAR_EXACT" else centre - 0.5
        return values, (middle - half, middle + half)
    if dataset.get("ModalityLUTSequence"):
        return values, None  # its numbers may be any
    bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = (
        float(dataset.get(name, usual))
        for name, usual in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    low, high = sorted(end * slope + intercept for end in ends)
    return values, (low, high)


def _name(value: Any) -> str:
    """Return what a file calls something, in a line; of a known identifier its name."""
    return " ".join(str(getattr(value, "name", value or "")).split())[:_SHOWN]


def _first(value: Any) -> float | None:
    several = isinstance(value, (list, tuple)) or hasattr(value, "__getitem__")
    value = value[0] if several and value else value
    return None if value is None or value == "" else float(value)
