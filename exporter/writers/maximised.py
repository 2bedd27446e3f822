"""What the writers say of a picture that excites a channel or a class."""

from __future__ import annotations

from exporter.records import MaximisedPicture


def channel_name(one: MaximisedPicture) -> str:
    """Return what names the channel within its layer: ``channel 12``, ``281 tabby``."""
    if one.layer != "output":
        return f"channel {one.channel}"
    return f"{one.channel} {one.name}".strip()


def how(one: MaximisedPicture) -> str:
    """Return prior and settings in words."""
    return f"{'no' if one.prior == 'none' else one.prior} prior, {one.settings}"
