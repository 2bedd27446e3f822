"""What only the whole set shows: channels, numbers, classes, methods, images that matter."""

from exporter.summaries.annotations import given_region, region_cells
from exporter.summaries.boxes import BoxCounts
from exporter.summaries.channels import CHANNEL_SCHEMA, channel_table, merge_channels
from exporter.summaries.choices import candidates, keep_images
from exporter.summaries.concepts import Concepts, factorise
from exporter.summaries.faithfulness import FAITHFULNESS, merge_faithfulness
from exporter.summaries.sanity import SANITY, merge_sanity
from exporter.summaries.scope import Scope
from exporter.summaries.sets import SET_TABLES, SetTables, merge_set
from exporter.summaries.shards import IMAGES_SCHEMA, PARTS, shard_parts
from exporter.summaries.strategies import Strategies, cluster
from exporter.summaries.sums import SET_SCHEMA

__all__ = [
    "CHANNEL_SCHEMA",
    "FAITHFULNESS",
    "IMAGES_SCHEMA",
    "PARTS",
    "SANITY",
    "SET_SCHEMA",
    "SET_TABLES",
    "BoxCounts",
    "Concepts",
    "Scope",
    "SetTables",
    "Strategies",
    "candidates",
    "channel_table",
    "cluster",
    "factorise",
    "given_region",
    "keep_images",
    "merge_channels",
    "merge_faithfulness",
    "merge_sanity",
    "merge_set",
    "region_cells",
    "shard_parts",
]
