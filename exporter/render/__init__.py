"""Pictures of maps, channels and kernels, with numpy and OpenCV only: no torch, no model."""

from exporter.render.captions import flag_text, target_text
from exporter.render.colormaps import COLORMAPS, get_colormap
from exporter.render.confusion import confusion_sheet
from exporter.render.encode import (
    decode_image,
    encode_jpeg,
    encode_png,
    encode_webp,
    thumbnail,
)
from exporter.render.heatmaps import (
    OPACITY,
    fading_map,
    hatch,
    heatmap,
    normalise,
    overlay,
    overlay_map,
    painted,
)
from exporter.render.montage import MontageLayout, layout_of
from exporter.render.sheets import activation_sheet, kernel_places, kernel_sheet
from exporter.render.text import draw_text, fit_text, text_width

__all__ = [
    "COLORMAPS",
    "OPACITY",
    "MontageLayout",
    "activation_sheet",
    "confusion_sheet",
    "decode_image",
    "draw_text",
    "encode_jpeg",
    "encode_png",
    "encode_webp",
    "fading_map",
    "fit_text",
    "flag_text",
    "get_colormap",
    "hatch",
    "heatmap",
    "kernel_places",
    "kernel_sheet",
    "layout_of",
    "normalise",
    "overlay",
    "overlay_map",
    "painted",
    "target_text",
    "text_width",
    "thumbnail",
]
