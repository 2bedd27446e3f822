"""The ``exporter`` command."""

from exporter.cli.app import group, main

__all__ = ["group", "main"]
