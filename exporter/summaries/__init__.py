"""What only the whole set shows: channels, numbers, classes, methods, images that matter."""

from exporter.summaries.channels import (
    CHANNEL_SCHEMA,
    SUMMARY_SCHEMA,
    channel_table,
    merge_channels,
)
from exporter.summaries.faithfulness import (
    FAITHFULNESS,
    FAITHFULNESS_SCHEMA,
    METHOD_FAITHFULNESS_SCHEMA,
    faithfulness_table,
    merge_faithfulness,
)
from exporter.summaries.keep import keep_images
from exporter.summaries.schema import IMAGES_SCHEMA, SET_SCHEMA, SET_TABLES
from exporter.summaries.scope import Scope
from exporter.summaries.sets import SetTables, merge_set
from exporter.summaries.shards import PARTS, map_measures, shard_parts

__all__ = [
    "CHANNEL_SCHEMA",
    "FAITHFULNESS",
    "FAITHFULNESS_SCHEMA",
    "IMAGES_SCHEMA",
    "METHOD_FAITHFULNESS_SCHEMA",
    "PARTS",
    "SET_SCHEMA",
    "SET_TABLES",
    "SUMMARY_SCHEMA",
    "Scope",
    "SetTables",
    "channel_table",
    "faithfulness_table",
    "keep_images",
    "map_measures",
    "merge_channels",
    "merge_faithfulness",
    "merge_set",
    "shard_parts",
]
