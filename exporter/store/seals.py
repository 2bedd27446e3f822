"""Seals: how the exporter recognises what its user wrote, made with a key that only they have."""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from exporter.errors import RunError
from exporter.store.files import open_regular

_KEY_BYTES = 32


def seal(content: bytes) -> str | None:
    """Return the user's seal of a content; None where there is no place for their key."""
    key = _key() or _new_key()
    return None if key is None else _seal(content, key)


def bears(content: bytes, sealed: object) -> bool:
    """Say whether a seal is this user's, of this content."""
    key = _key()
    given = str(sealed).encode("utf-8", "replace")
    return key is not None and hmac.compare_digest(given, _seal(content, key).encode())


def _seal(content: bytes, key: bytes) -> str:
    return hmac.new(key, content, "sha256").hexdigest()


def _key_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "exporter" / "recipe.key"


def _key() -> bytes | None:
    """Return the user's key; None where there is none."""
    try:
        with open_regular(_key_file(), os.O_RDONLY, "rb") as file:
            key = file.read(_KEY_BYTES)
    except (OSError, RuntimeError, RunError):
        return None
    return key if len(key) == _KEY_BYTES else None


def _new_key() -> bytes | None:
    """Make the user's key, which nobody else may read; None where there is no place for it."""
    half = None
    try:
        file = _key_file()
        half = file.with_name(f".{secrets.token_hex(6)}.tmp")
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(secrets.token_bytes(_KEY_BYTES))
        try:
            os.link(half, file)
        except FileExistsError:  # of two processes the first
            pass
        except OSError:  # a file system without hard links, where the last one wins
            half.replace(file)
    except (OSError, RuntimeError):
        return None
    finally:
        if half is not None:
            with suppress(OSError):
                half.unlink(missing_ok=True)
    return _key()
