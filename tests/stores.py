"""A local S3 server, and photographs in a bucket, for tests of runs and images in stores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec
import pytest

VARIABLES = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "very-secret-indeed",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def s3(home: Path) -> Iterator[Any]:
    """Yield the file system of a server that has one bucket, called ``bucket``."""
    s3fs = pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        where = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "HOME": str(home)}
        with mock.patch.dict(os.environ, VARIABLES | where):
            s3fs.S3FileSystem.clear_instance_cache()
            system = s3fs.S3FileSystem(use_listings_cache=False)
            # Its buckets are the process's, and outlive a server.
            if system.exists("bucket"):
                system.rm("bucket", recursive=True)
            system.mkdir("bucket")
            yield system
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()


def emptied(name: str) -> str:
    """Return an address in memory with nothing at it."""
    system = fsspec.filesystem("memory")
    if system.exists(f"/{name}"):
        system.rm(f"/{name}", recursive=True)
    return f"memory://{name}"
