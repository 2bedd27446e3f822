"""``python -m exporter`` is the ``exporter`` command."""

from __future__ import annotations

import sys


def main() -> int:
    """Load the command line and run it; an interrupt meanwhile ends it without a traceback."""
    try:
        from exporter.cli import main as command
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return command()


if __name__ == "__main__":
    sys.exit(main())
