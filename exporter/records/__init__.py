"""What crosses a boundary between stages: frozen dataclasses, plain values, no torch.

Units: pixels are in the original photograph (after its EXIF rotation) unless a name says ``view``,
which is the square of pixels the model sees. Shapes are written (N, C, H, W).
"""

from exporter.records.channels import (
    OUTPUT,
    ChannelBatch,
    ChannelRow,
    KernelRecord,
    MaximisedPicture,
    own_name,
)
from exporter.records.columns import Box, Column, Float32, Int32
from exporter.records.faithfulness import (
    Faithfulness,
    MethodFaithfulness,
    MethodSanity,
    OtherMetric,
    SanityStep,
)
from exporter.records.findings import Findings, LayoutRecord, PrecisionRecord
from exporter.records.images import (
    Geometry,
    ImageEntry,
    Prepared,
    Preprocessing,
)
from exporter.records.plan import (
    COMBINED,
    SCHEMA_VERSION,
    HeadRecord,
    LayerRecord,
    MethodRecord,
    ModelRecord,
    Plan,
)
from exporter.records.rows import (
    FLAG_REASONS,
    GIVEN,
    MAP_LEVELS,
    REGION_CELLS,
    ImageStage,
    Prediction,
    Region,
    Row,
    StoredActivation,
    StoredMap,
)
from exporter.records.sets import (
    CalibrationBin,
    ClassMap,
    ClassRow,
    ConfusedPair,
    ImageMeasures,
    LayerRedundancy,
    MethodAgreement,
    MethodRow,
    RedundantPair,
    SetSummary,
    Strip,
)
from exporter.records.targets import Target, parse_target, plain, synonyms
from exporter.records.written import (
    Totals,
    Written,
    ratio,
)

__all__ = [
    "COMBINED",
    "FLAG_REASONS",
    "GIVEN",
    "MAP_LEVELS",
    "OUTPUT",
    "REGION_CELLS",
    "SCHEMA_VERSION",
    "Box",
    "CalibrationBin",
    "ChannelBatch",
    "ChannelRow",
    "ClassMap",
    "ClassRow",
    "Column",
    "ConfusedPair",
    "Faithfulness",
    "Findings",
    "Float32",
    "Geometry",
    "HeadRecord",
    "ImageEntry",
    "ImageMeasures",
    "ImageStage",
    "Int32",
    "KernelRecord",
    "LayerRecord",
    "LayerRedundancy",
    "LayoutRecord",
    "MaximisedPicture",
    "MethodAgreement",
    "MethodFaithfulness",
    "MethodRecord",
    "MethodRow",
    "MethodSanity",
    "ModelRecord",
    "OtherMetric",
    "Plan",
    "PrecisionRecord",
    "Prediction",
    "Prepared",
    "Preprocessing",
    "RedundantPair",
    "Region",
    "Row",
    "SanityStep",
    "SetSummary",
    "StoredActivation",
    "StoredMap",
    "Strip",
    "Target",
    "Totals",
    "Written",
    "own_name",
    "parse_target",
    "plain",
    "ratio",
    "synonyms",
]
