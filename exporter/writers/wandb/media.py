"""The pictures that W&B shows by run and step, beside its tables: every map of a few images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.writers import links
from exporter.writers.montages import montage_jpegs
from exporter.writers.reading import kept_rows
from exporter.writers.wandb.tables import caption_of

if TYPE_CHECKING:
    from exporter.store import Run
    from exporter.writers.wandb.rows import Picture
    from exporter.writers.wandb.tables import Pictures

MOST = 8


def media_names(run: Run) -> dict[str, str]:
    """Return the images by the name that each has in W&B: the same in all runs of a set.

    Those with the smallest ids, so that the choice depends on nothing but the images.
    """
    shared = links.shared_paths(run.plan)
    names = {}
    for entry in sorted(run.plan.images, key=lambda entry: entry.id)[:MOST]:
        path = links.shown_path(entry.path)
        name = links.safe_name(f"{path}@{entry.id}" if path in shared else path)
        names[f"maps/{name}"] = entry.id
    return names


def media_of(run: Run, pictures: Pictures) -> dict[str, Picture]:
    """Return the montages of these images by their names, without those that cannot be read."""
    names = {id: name for name, id in media_names(run).items()}
    media: dict[str, Picture] = {}
    for row, montage in montage_jpegs(run, kept_rows(run, names)):
        if row.image is not None:
            first = row.predictions[0] if row.predictions else None
            media[names[row.id]] = {
                "path": pictures.add("montages", row.id, montage),
                "caption": caption_of(first.name, first.score) if first else "",
            }
    return media
