"""What goes with a paper, from runs and comparisons alone: figures, tables, supplements."""

from exporter.publish.figures import figure
from exporter.publish.packing import Packed, pack
from exporter.publish.reporting import WandbReport, wandb_report
from exporter.publish.site import Site, publish_site
from exporter.publish.tables import table
from exporter.publish.tabular import Table

__all__ = [
    "Packed",
    "Site",
    "Table",
    "WandbReport",
    "figure",
    "pack",
    "publish_site",
    "table",
    "wandb_report",
]
