"""The index from a paper's claims to pages of its supplement: a Markdown list with links."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from exporter.errors import ConfigError, reason

_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+(.*)")
_LINK = re.compile(r"\[([^\]]*)\]\(\s*<?([^)>\s]*)>?\s*\)")


@dataclass(frozen=True)
class Part:
    """A piece of a claim: its text, and where it leads, if anywhere."""

    text: str
    link: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper."""

    parts: tuple[Part, ...]

    @property
    def markdown(self) -> str:
        """The claim as it was written, its links from the top of the supplement."""
        return "".join(f"[{p.text}]({p.link})" if p.link else p.text for p in self.parts)


def read_claims(file: Path) -> list[Claim]:
    """Read a list of claims.

    Raises:
        ConfigError: if the file cannot be read, or holds no list.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(f"the claims {str(file)!r} cannot be read: {reason(error)}") from error
    items: list[str] = []
    for line in text.splitlines():
        if match := _ITEM.fullmatch(line):
            items.append(match[1].strip())
        elif items and line.startswith((" ", "\t")) and line.strip():
            items[-1] += f" {line.strip()}"
    if not items:
        raise ConfigError(
            f"the claims {str(file)!r} hold no list; write each as a line such as "
            "- Grad-CAM moves ([Figure 2](images.html#image=ID))"
        )
    return [Claim(tuple(_parts(item))) for item in items]


def _parts(item: str) -> Iterator[Part]:
    at = 0
    for match in _LINK.finditer(item):
        if match.start() > at:
            yield Part(item[at : match.start()])
        yield Part(match[1] or match[2], match[2])
        at = match.end()
    if at < len(item):
        yield Part(item[at:])


def settled(
    claims: list[Claim], folder: Path, reports: list[str], ids: Container[str]
) -> list[Claim]:
    """Return the claims with links from the top of the supplement, each of which leads somewhere.

    Raises:
        ConfigError: of the first link that leads nowhere, or out of the supplement.
    """

    def settle(part: Part) -> Part:
        if not part.link:
            return part
        file, _, anchor = part.link.partition("#")
        there = unquote(file)
        if "://" in file or there.startswith(("/", "mailto:")) or ".." in there.split("/"):
            raise ConfigError(
                f"the claims link to {part.link!r}, which is outside of the supplement; link to "
                "its pages"
            )
        inside = [f"{report}/{file or 'index.html'}" for report in reports if len(reports) == 1]
        named = next(
            (each for each in (*inside, file) if each and (folder / unquote(each)).is_file()), None
        )
        if named is None:
            pages = ", ".join(f"{report}/index.html" for report in reports)
            raise ConfigError(
                f"the claims link to {part.link!r}, and the supplement has no such page; its "
                f"reports begin at {pages}"
            )
        if anchor and not _leads(folder / unquote(named), unquote(anchor), ids):
            raise ConfigError(f"the claims link to {part.link!r}, and that page has no {anchor!r}")
        return Part(part.text, f"{named}#{anchor}" if anchor else named)

    return [Claim(tuple(map(settle, claim.parts))) for claim in claims]


def _leads(page: Path, anchor: str, ids: Container[str]) -> bool:
    """Say whether a page has an id, or understands an anchor such as ``image=ID&map=gradcam``."""
    text = page.read_text(encoding="utf-8", errors="replace")
    if "=" not in anchor:
        return f'id="{anchor}"' in text
    return all(
        value in ids if key == "image" else f'name="{key}"' in text
        for key, value in parse_qsl(anchor, keep_blank_values=True)
    )
