"""Image sets, decoding, preprocessing and stable keys."""

from exporter.images.decode import decode
from exporter.images.preprocess import normalise, prepare
from exporter.images.sets import ImageSet, open_images

__all__ = ["ImageSet", "decode", "normalise", "open_images", "prepare"]
