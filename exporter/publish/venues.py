"""What venues ask of supplementary material: ``venues.csv``, a line per venue with its source."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from exporter.errors import ConfigError, choices


@dataclass(frozen=True)
class Venue:
    """A venue's rules.

    Attributes:
        title: its name as people write it.
        bytes: the largest supplement; None where the source says none.
        anonymous: whether it is reviewed double-blind.
        rule: what it asks for, in a phrase.
        source: where that was read.
        read: when, as an ISO 8601 day.
    """

    title: str
    bytes: int | None
    anonymous: bool
    rule: str
    source: str
    read: str


def venues() -> dict[str, Venue]:
    """Return the venues that are known, by name."""
    text = Path(__file__).with_name("venues.csv").read_text(encoding="utf-8")
    return {
        row["venue"]: Venue(
            title=row["title"],
            bytes=int(row["megabytes"]) * 10**6 if row["megabytes"] else None,
            anonymous=row["anonymous"] == "yes",
            rule=row["rule"],
            source=row["source"],
            read=row["read"],
        )
        for row in csv.DictReader(text.splitlines())
    }


def venue_of(name: str) -> Venue:
    """Return a venue.

    Raises:
        ConfigError: if it is not known; it lists those that are.
    """
    known = venues()
    if name.lower() not in known:
        raise ConfigError(f"no venue {name!r} is known; {choices(name.lower(), known, limit=20)}")
    return known[name.lower()]
