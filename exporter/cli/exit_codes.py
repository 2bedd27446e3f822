"""What the command's exit codes mean."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
BAD_REQUEST: Final = 2
"""A request that cannot be met: one clear line on standard error."""
SOME_SKIPPED: Final = 3
"""Done, but some images could not be read."""
INTERRUPTED: Final = 130
"""Stopped by Ctrl-C or SIGTERM; what is done is kept."""
