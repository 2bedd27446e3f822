"""What a file is that cannot be read as a picture, by its first bytes."""

from __future__ import annotations

import re

from exporter.images.tiff import describe_tiff, is_tiff

HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Brands of HEIC files."""

_KNOWN = (
    (rb"....ftyp(%s)" % b"|".join(HEIF), "HEIC; install exporter[heic] to read it"),
    (rb"....ftypavi[fs]", "AVIF; install Pillow 11.3 or newer to read it"),
    (rb"....ftypcrx |FUJIFILMCCD-RAW", "a camera's raw photograph; save it as JPEG, PNG or TIFF"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL; save it as JPEG or PNG"),
    (rb"v/1\x01", "OpenEXR; save it as a floating-point TIFF"),
    (rb"SIMPLE  =", "FITS; hand over a data set that gives arrays"),
    (rb".{344}(n\+1|ni1)\0", "a NIfTI volume; save its slices, or give a data set of arrays"),
    (rb"\x89HDF|CDF[\x01\x02\x05]", "HDF5 or NetCDF; hand over a data set that gives arrays"),
    (rb"\x93NUMPY", "a NumPy array; hand over a data set that gives arrays"),
    (rb"\x1f\x8b|PK\x03\x04|7z\xbc\xaf|BZh|\xfd7zXZ", "compressed or an archive; unpack it"),
    (rb"%PDF", "a PDF document; save its pictures"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not the picture; run git lfs pull"),
    (rb"\s*(?i:<!doctype html|<html)", "a web page, as a failed download leaves"),
    (rb"\s*(<\?xml|<svg)", "SVG or other XML; save it as PNG"),
)


def describe_unread(content: bytes) -> str:
    """Say what a file is that Pillow does not open, and what would be right.

    >>> describe_unread(b"%PDF-1.7")
    'the file is a PDF document; save its pictures'
    """
    bands = describe_tiff(content) if is_tiff(content) else None
    if bands is not None:
        return (
            f"{bands}; say which to show with [preprocessing] bands = [3, 2, 1], and between which "
            "numbers with range = [black, white]"
        )
    for start, name in _KNOWN:
        if re.match(start, content[:512], re.DOTALL):
            return f"the file is {name}"
    return f"the file is not an image that can be read; it begins with {content[:16]!r}"
