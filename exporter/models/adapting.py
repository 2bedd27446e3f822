"""Models whose forward does not give what can be explained, called so that it does.

A model that is adapted is itself but for its forward: the same layers under the same names.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from exporter.errors import ModelError

_ADAPTED: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()
"""By model, so that what is known of it (how layers lie) is known the next time."""


class Adapted(nn.Module):
    """A model with another forward.

    Attributes:
        gives: the end of the note that says so.
    """

    gives: ClassVar[str]


class ImageTower(Adapted):
    """An image-text model, called with images alone: it gives their embeddings."""

    gives = "the image's tower runs and gives its embedding"

    def forward(self, images: Tensor) -> Tensor:
        """Return the images' embeddings (N, D)."""
        own: Any = self
        return embedding_in(own.get_image_features(pixel_values=images))


class BoxesOfQueries(Adapted):
    """A DETR of transformers or one of its kin: it gives a box per query, the surest first."""

    gives = "each query's best class is a box"

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return a mapping per image (see `boxes_of`).

        A share is the class's softmax where the last logit is that of no object, else its sigmoid.

        Raises:
            ModelError: if there are neither as many logits as classes, nor one more.
        """
        own: Any = self
        given = super().forward(pixel_values=images)
        logits, known = given.logits, own.config.num_labels
        if logits.shape[-1] not in (known, known + 1):
            raise ModelError(
                f"the {type(self).__name__} gives {logits.shape[-1]} logits per query and its "
                f"config says {known} labels, so it is not clear which of them are classes"
            )
        empty = logits.shape[-1] > known
        shares = logits.softmax(-1)[..., :-1] if empty else logits.sigmoid()
        return boxes_of(shares, given.pred_boxes, images)


class WithoutNoObject(Adapted):
    """The original DETR, whose last logit is that of no object."""

    gives = "each query's best class is a box, scored by its softmax beside that of no object"

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return a mapping per image (see `boxes_of`)."""
        given = super().forward(images)
        return boxes_of(given["pred_logits"].softmax(-1)[..., :-1], given["pred_boxes"], images)


class EachByItself(Adapted):
    """An original implementation of a later DETR, all of whose logits are those of classes."""

    gives = "each query's best class is a box, scored by its sigmoid"

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return a mapping per image (see `boxes_of`)."""
        given = super().forward(images)
        return boxes_of(given["pred_logits"].sigmoid(), given["pred_boxes"], images)


_ORIGINAL: dict[str, type[Adapted]] = {
    "DETR": WithoutNoObject,
    "DeformableDETR": EachByItself,
    "ConditionalDETR": EachByItself,
    "DABDETR": EachByItself,
}
"""By class name, how the authors' own implementations are read: the mapping does not tell."""


def boxes_of(shares: Tensor, centred: Tensor, images: Tensor) -> list[dict[str, Tensor]]:
    """Return the boxes of queries, a mapping per image.

    Args:
        shares: (N, Q, K), each query's probability of each class.
        centred: (N, Q, 4), centre, width and height as shares of the image.
        images: (N, C, H, W).

    Returns:
        Of each image boxes (Q, 4), scores, labels, query, (Q,), the surest first, and shares
        (Q, K). Boxes are left, top, right, bottom in pixels of the images; ``query`` says which row
        of ``shares``, which stay in the order of the queries, each of them is.
    """
    scores, labels = shares.max(-1)
    middle, half = centred[..., :2], centred[..., 2:] / 2
    ends = torch.cat((middle - half, middle + half), -1)
    boxes = ends * ends.new_tensor([images.shape[3], images.shape[2]]).repeat(2)
    return [
        {
            "boxes": boxes[image, order],
            "scores": scores[image, order],
            "labels": labels[image, order],
            "query": order,
            "shares": shares[image],
        }
        for image, order in enumerate(scores.argsort(descending=True))
    ]


def adapt(module: nn.Module) -> nn.Module:
    """Return the model as it is called: adapted where its kind is known, else as it is."""
    kind = None if isinstance(module, Adapted) else _kind(module)
    if kind is None:
        return module
    adapted = _ADAPTED.get(module)
    if adapted is None:
        adapted = _ADAPTED[module] = copy.copy(module)
        own: Any = type(module)
        adapted.__class__ = type(own.__name__, (kind, own), {"__module__": own.__module__})
    # What it has is the model's, also what was set since.
    vars(adapted).update(vars(module))
    return adapted


def _kind(module: nn.Module) -> type[Adapted] | None:
    named = any(kind.__name__.endswith("ForObjectDetection") for kind in type(module).__mro__)
    labels = getattr(getattr(module, "config", None), "num_labels", None)
    if named and labels is not None and _first_argument(module) == "pixel_values":
        return BoxesOfQueries
    if hasattr(module, "class_embed") and hasattr(module, "bbox_embed"):
        return _ORIGINAL.get(type(module).__name__)
    if hasattr(module, "get_image_features") and _first_argument(module) == "input_ids":
        return ImageTower
    return None


def _first_argument(module: nn.Module) -> str:
    return next(iter(inspect.signature(module.forward).parameters), "")


def embedding_in(given: Any) -> Tensor:
    """Return the embedding (N, D) in what transformers' ``get_…_features`` give."""
    embedding: Tensor = given if isinstance(given, Tensor) else given.pooler_output
    return embedding
