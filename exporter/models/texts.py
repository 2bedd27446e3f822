"""What the text tower of an image-text model (CLIP, SigLIP) makes of a text."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from exporter.errors import TargetError, one_line
from exporter.guard import FAILURES, user_code
from exporter.models.adapting import ImageTower, embedding_in
from exporter.records import Target

_OPENAI_VOCABULARY = 49408
"""Tokens of the vocabulary that open_clip brings along."""


def refuse_classes(module: nn.Module, target: Target) -> None:
    """Refuse a target that ranks classes, of a model that gives embeddings.

    Raises:
        TargetError: if it does and the model is an image-text model.
    """
    packages = {kind.__module__.partition(".")[0] for kind in type(module).__mro__}
    alone = isinstance(module, ImageTower) or packages & {"open_clip", "clip"}
    every = target.parts or (target,)
    if alone and any(part.kind in ("predicted", "label", "second", "top") for part in every):
        raise TargetError(
            f"the {type(module).__name__} gives an embedding of the image and no classes; use "
            "--target 'text:a photo of a dog' (how similar it is to a text), similar:IMAGE, or the "
            "index of one coordinate"
        )


@torch.no_grad()
def embed_text(module: nn.Module, text: str) -> Tensor:
    """Return what an image-text model makes of a text, (D,), by running its text tower once.

    It is read into tokens by ``tokenizer``, where the model or a part of it has one (a function
    from a list of texts to token ids, as transformers' and open_clip's are), by the one that was
    saved with a transformers model, or for OpenAI's vocabulary by open_clip's own.

    Args:
        module: the model, or a wrapper around it, as a guest.
        text: what is looked for in images.

    Raises:
        TargetError: if there is no text tower or no tokenizer, or either fails.
    """
    for part in module.modules():
        encode = getattr(part, "encode_text", None) or getattr(part, "get_text_features", None)
        if callable(encode):
            break
    else:
        raise TargetError(
            f"the target 'text:{text}' needs a model with a text tower, such as transformers' CLIP "
            f"or SigLIP or one of open_clip, and the model is a {type(module).__name__}"
        )
    with user_code("the text tower", repr(text), error=TargetError):
        tokens = _tokens(module, part, text)
        place = next(part.parameters()).device
        if isinstance(tokens, Tensor):
            return embedding_in(encode(tokens.to(place))).detach().flatten()
        named = {name: torch.as_tensor(value).to(place) for name, value in tokens.items()}
        return embedding_in(encode(**named)).detach().flatten()


def _tokens(module: nn.Module, model: nn.Module, text: str) -> Tensor | Mapping[str, Any]:
    """Return a text as the text tower takes it: token ids (1, L), or by argument."""
    own = (getattr(part, "tokenizer", None) for part in module.modules())
    tokenizer: Any = next(filter(None, own), None)
    config: Any = getattr(model, "config", None)
    if tokenizer is None:
        tokenizer = _open_clip(model) if config is None else _saved(config)
    longest = getattr(getattr(config, "text_config", None), "max_position_embeddings", None)
    if longest is None or not hasattr(tokenizer, "model_max_length"):
        tokens = tokenizer([text])
        return tokens if isinstance(tokens, Tensor | Mapping) else torch.as_tensor(tokens)
    # SigLIP knows texts that are filled up to their longest only, without a mask.
    full = "siglip" in config.model_type
    padding = "max_length" if full else True
    given: Mapping[str, Any] = tokenizer(
        [text], padding=padding, max_length=longest, truncation=True, return_tensors="pt"
    )
    return {"input_ids": given["input_ids"]} if full else given


def _saved(config: Any) -> Any:
    """Return the tokenizer that lies where a transformers model was loaded from."""
    name, why = getattr(config, "name_or_path", "") or getattr(config, "_name_or_path", ""), ""
    if name:
        transformers: Any = importlib.import_module("transformers")
        try:
            return transformers.AutoTokenizer.from_pretrained(name, local_files_only=True)
        except FAILURES as error:
            why = f" beside {name!r} ({one_line(error)})"
    raise TargetError(
        f"the text cannot be read into tokens: there is no tokenizer{why}; set the model's "
        "attribute tokenizer, such as transformers.AutoTokenizer.from_pretrained(…)"
    )


def _open_clip(model: nn.Module) -> Any:
    """Return open_clip's own tokenizer, for models of its vocabulary."""
    if getattr(model, "vocab_size", None) == _OPENAI_VOCABULARY:
        open_clip: Any = importlib.import_module("open_clip")
        return open_clip.SimpleTokenizer(context_length=model.context_length)
    raise TargetError(
        "the text cannot be read into tokens: the model's tokenizer is not known; set its "
        "attribute tokenizer, such as open_clip.get_tokenizer(…)"
    )
