"""What only the whole set shows: channel statistics, and which images are kept for small sinks."""

from exporter.summaries.channels import (
    CHANNEL_SCHEMA,
    SUMMARY_SCHEMA,
    channel_table,
    merge_channels,
)
from exporter.summaries.keep import keep_images

__all__ = ["CHANNEL_SCHEMA", "SUMMARY_SCHEMA", "channel_table", "keep_images", "merge_channels"]
