"""Targets: how people write which scalar of the output is explained (docs/models.md).

``parse_target`` is the one reader of that text, for the scorer as for captions and the report.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from exporter.errors import TargetError, choices

_KINDS = ("predicted", "label", "second", "value")
_FORMS = (*_KINDS, "top-3", "binary", "multilabel", "mask", "plane", "prob:predicted", "box:0")
_READINGS = ("binary", "multilabel", "mask", "plane")
_LONGEST = 1000
"""Characters of the longest target."""
_PARTS = 32
"""Classes that may be joined by ``+`` and ``-`` at most."""
_FUNCTION = re.compile(r"[^:\s][^:]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True)
class Target:
    """Which scalar of the output is explained.

    Attributes:
        kind: ``predicted`` (largest logit), ``label`` (the image's own class, the predicted one
            where it is not known), ``second`` (second largest), ``top`` (the k largest), ``class``
            (one index), ``value`` (a regression's output), ``box`` (one detection), ``similar``
            and ``text`` (similarity to an image or a text), ``function`` (the user's own) or
            ``several``.
        index: the class of ``class``, the column of ``value``, the number of ``box``; or None.
        k: how many scalars per image.
        reading: how the output is read where its shape does not say it: ``binary``,
            ``multilabel``, ``mask`` (inside the image's given mask), ``plane`` (every position of a
            plane of scores), or ``""``.
        probability: whether the probability is explained instead of the logit.
        against: for a contrast, what is subtracted.
        parts: the targets of ``several``, whose scalars stand side by side.
        source: path of ``similar``'s image, the text of ``text``, or ``module:function``.
    """

    kind: str
    index: int | None = None
    k: int = 1
    reading: str = ""
    probability: bool = False
    against: Target | None = None
    parts: tuple[Target, ...] = ()
    source: str = ""

    @property
    def compares(self) -> bool:
        """Whether it is the similarity of two embeddings."""
        return self.kind in ("similar", "text")

    def words(self, names: Mapping[int, str | None] | None = None) -> str:
        """Say of what a score is explained; ``names`` are those of classes, by index.

        >>> parse_target("prob:predicted-2", ()).words()
        'the predicted class rather than class 2'
        """
        if self.parts:
            return " and of ".join(part.words(names) for part in self.parts)
        index = self.index or 0
        words = {
            "predicted": "the predicted class",
            "label": "the image's label, or of the predicted class where it is not known",
            "second": "the second most likely class",
            "top": f"the {self.k} most likely classes",
            "class": (names or {}).get(index) or f"class {index}",
            "box": f"box {index}",
            "value": "the output" if self.index is None else f"output {index}",
        }.get(self.kind, self.source)
        return words if self.against is None else f"{words} rather than {self.against.words(names)}"


def parse_target(text: str, classes: Sequence[str]) -> Target:
    """Read a target as the command line writes it, and as maps are stored with it.

    Args:
        text: a class, ``predicted``, ``label``, ``second``, ``top-3``, an index (``281``,
            ``class:281``) or a name (``tiger cat``); two of them as ``A-B`` (why A rather than B)
            or ``A+B`` (a map each); any of these after ``prob:`` (the probability instead of the
            logit), ``binary:``, ``multilabel:``, ``mask:`` or ``plane:``; ``value`` or ``value:3``;
            ``box:3``; ``similar:PATH``; ``text:a photo of a dog``; ``module:function``
            or ``file.py:function``. A number is always an index.
        classes: class names by index, or empty.

    Raises:
        TargetError: if it is none of these, the name is that of several classes, or it has more
            than 1,000 characters or 32 joined parts.

    >>> parse_target("top-3", ()).k
    3
    >>> parse_target("Tiger_Cat", ["tabby", "tiger cat"]).index
    1
    >>> parse_target("prob:predicted-label", ()).against.kind
    'label'
    """
    wanted = text.strip()
    if len(wanted) > _LONGEST:
        raise TargetError(
            f"the target {wanted[:40] + '…'!r} has {len(wanted):,} characters; "
            f"write at most {_LONGEST:,}"
        )
    read = _prefixed(wanted, classes) or _atom(wanted, classes) or _joined(wanted, classes)
    if read is not None:
        return read
    if _FUNCTION.fullmatch(wanted) and not wanted.startswith("class:"):
        return Target("function", source=wanted)
    return Target("class", index=_index_of(wanted.removeprefix("class:").strip(), classes))


def _prefixed(wanted: str, classes: Sequence[str]) -> Target | None:
    """Return the target that begins with a word of its own, or None."""
    head, colon, rest = wanted.partition(":")
    if head in _READINGS:
        inner = parse_target(rest, classes) if colon else Target("predicted")
        return _read_as(inner, wanted, reading=head)
    if not colon or head not in ("prob", "similar", "text", "box", "value"):
        return None
    if head == "prob":
        return _read_as(parse_target(rest, classes), wanted, probability=True)
    if head in ("similar", "text"):
        if not rest.strip():
            right = {"similar": "names no image; write similar:PATH", "text": "has no text"}[head]
            raise TargetError(f"the target {wanted!r} {right}")
        return Target(head, source=rest.strip())
    if not re.fullmatch(r"[0-9]+", rest.strip()):
        raise TargetError(f"the target {wanted!r} needs a number from 0; write {head}:0")
    return Target(head, index=int(rest))


def _read_as(target: Target, text: str, *, reading: str = "", probability: bool = False) -> Target:
    """Say of a target, and of all that it is made of, how the output is read."""
    fixed = target.compares or target.kind in ("function", "box", "value")
    if fixed or (reading and target.reading):
        raise TargetError(
            f"the target {text!r} does not fit together; after prob:, binary:, multilabel:, mask: "
            "or plane: write a class, such as predicted, label, top-3 or an index"
        )

    def same(part: Target) -> Target:
        return _read_as(part, text, reading=reading, probability=probability)

    return replace(
        target,
        reading=reading or target.reading,
        probability=probability or target.probability,
        against=target.against and same(target.against),
        parts=tuple(map(same, target.parts)),
    )


def _atom(wanted: str, classes: Sequence[str]) -> Target | None:
    """Return the target that one word means, a class's exact name included, or None."""
    if wanted in _KINDS:
        return Target(wanted)
    if top := re.fullmatch(r"top-?([0-9]+)", wanted):
        if int(top[1]) < 1:
            raise TargetError(f"the target {wanted!r} asks for no class; write top-1 or more")
        return Target("top", k=int(top[1]))
    name = wanted.removeprefix("class:").strip()
    if re.fullmatch(r"[0-9]+", name):
        if classes and int(name) >= len(classes):
            named = [f"{index} ({known})" for index, known in enumerate(classes)]
            its = ", ".join(named) if len(named) <= 8 else f"from {named[0]} to {named[-1]}"
            raise TargetError(f"the model has no class {name}; its classes are {its}")
        return Target("class", index=int(name))
    if _indices_of(name, classes):
        return Target("class", index=_index_of(name, classes))
    return None


def _joined(wanted: str, classes: Sequence[str]) -> Target | None:
    """Return what ``A+B`` or ``A-B`` means, or None where some part of it is no target."""
    if wanted.count("+") + wanted.count("-") >= _PARTS:
        if _FUNCTION.fullmatch(wanted):
            return None  # the signs are those of a file's path
        raise TargetError(
            f"the target {wanted[:40] + '…'!r} joins more than {_PARTS} parts; write at most "
            f"{_PARTS}, such as 281+285"
        )

    @cache  # without it the time doubles with every sign
    def read(text: str) -> Target | None:
        return (_atom(text, classes) or split(text)) if text else None

    def split(text: str) -> Target | None:
        for match in (*re.finditer(r"\+", text), *re.finditer("-", text)):
            sides = text[: match.start()].strip(), text[match.end() :].strip()
            first, second = map(read, sides)
            if first is not None and second is not None:
                return _join(first, second, match[0], text)
        return None

    return split(wanted)


def _join(first: Target, second: Target, sign: str, text: str) -> Target:
    """Return two targets side by side, or the contrast of two classes."""
    if sign == "+":
        parts = tuple(part for side in (first, second) for part in side.parts or (side,))
        return Target("several", k=first.k + second.k, parts=parts)
    if first == second or max(first.k, second.k) > 1 or first.against or second.against:
        raise TargetError(
            f"the target {text!r} is not a contrast; write two different classes, such "
            "as predicted-label, predicted-second or 281-285"
        )
    return replace(first, against=second)


def _indices_of(name: str, classes: Sequence[str]) -> list[int]:
    exact = [index for index, known in enumerate(classes) if known == name]
    if exact:
        return exact
    sought = plain(name)
    return [index for index, known in enumerate(classes) if sought in synonyms(known)]


def _index_of(name: str, classes: Sequence[str]) -> int:
    indices = _indices_of(name, classes)
    if len(indices) == 1:
        return indices[0]
    if indices:
        raise TargetError(
            f"{name!r} is the name of {len(indices)} classes; "
            f"give the index: {', '.join(map(str, indices))}"
        )
    if not classes:
        raise TargetError(
            f"the target {name!r} is none of {', '.join(_FORMS)} or a class index, "
            "and the model has no class names; give them with --classes"
        )
    raise TargetError(
        f"there is no target or class {name!r}; {choices(name, [*_FORMS, *classes], limit=12)}"
    )


def plain(name: str) -> str:
    """Return a name as it is compared: case-folded, runs of space, ``_`` and ``-`` as one space.

    >>> plain("Egyptian_cat ")
    'egyptian cat'
    """
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


def synonyms(name: str) -> tuple[str, ...]:
    """Return the plain names in a class name such as ``tench, Tinca tinca``.

    >>> synonyms("tench, Tinca tinca")
    ('tench', 'tinca tinca')
    """
    return tuple(dict.fromkeys(filter(None, map(plain, name.split(",")))))
