"""Image sets, decoding, preprocessing and stable keys.

What an image source of one's own needs is here: ``Source``, ``Entry``, ``ImageError``,
``ImageSetError``, ``hash_contents``, ``is_image_name`` and ``natural``.
"""

from exporter.errors import ImageError, ImageSetError
from exporter.images.decode import decode
from exporter.images.files import is_image_name, natural
from exporter.images.keys import hash_contents
from exporter.images.preprocess import normalise, prepare
from exporter.images.registry import open_source
from exporter.images.sets import ImageSet, open_images, reopen_images
from exporter.images.sources import Entry, Source

__all__ = [
    "Entry",
    "ImageError",
    "ImageSet",
    "ImageSetError",
    "Source",
    "decode",
    "hash_contents",
    "is_image_name",
    "natural",
    "normalise",
    "open_images",
    "open_source",
    "prepare",
    "reopen_images",
]
