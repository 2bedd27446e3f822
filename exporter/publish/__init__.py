"""What goes into a paper, from run folders and comparisons alone: figures and tables."""

from exporter.publish.figures import figure
from exporter.publish.reporting import WandbReport, wandb_report
from exporter.publish.site import Site, publish_site
from exporter.publish.tables import table
from exporter.publish.tabular import Table

__all__ = ["Site", "Table", "WandbReport", "figure", "publish_site", "table", "wandb_report"]
