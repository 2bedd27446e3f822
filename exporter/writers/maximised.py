"""What the writers say of a picture that excites a channel or a class."""

from __future__ import annotations

from exporter.records import MaximisedPicture


def channel_name(picture: MaximisedPicture) -> str:
    """Return what names the channel within its layer: ``channel 12``, ``281 tabby``."""
    if picture.layer != "output":
        return f"channel {picture.channel}"
    return f"{picture.channel} {picture.name}".strip()


def how(picture: MaximisedPicture) -> str:
    """Return prior and settings in words."""
    return f"{'no' if picture.prior == 'none' else picture.prior} prior, {picture.settings}"
