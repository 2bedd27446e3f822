"""What tests of the store share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import ModuleType

import pytest


@pytest.fixture(scope="module", autouse=True)
def durable(sampling: ModuleType) -> Iterator[None]:
    """Wait until files are on the disk, as the store does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", sampling.FSYNC)
        yield
