"""Whether files say who made them: what identifies a user and a machine, looked for in what is
given away.

The room knows nothing of how the exporter leaves such things out, so that it can prove it.
"""  # noqa: D205

from exporter.anonymity.identifiers import Identifier, identifiers_here, listed, named
from exporter.anonymity.searching import Searched, Trace, search

__all__ = ["Identifier", "Searched", "Trace", "identifiers_here", "listed", "named", "search"]
