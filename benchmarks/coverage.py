"""How many models are explained with no configuration: layers, output and maps, model by model.

Models have random weights (`benchmarks.fixtures`) and the size that their library gives; one is
in memory at a time. It counts as covered if the layers taken by default give maps that are finite
and not the same everywhere, and that follow a patch (`benchmarks.following`). Two of timm's
families are taught first (`benchmarks.taught`). Of the groups in `benchmarks.coverage_configs` a
model is right, too, where the exporter refuses it in a sentence.

    python -m benchmarks.coverage --json
    python -m benchmarks.coverage --only timm --shard 1/4 --json

The exit status is 1 where a model fails.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import coverage_configs as configs
from benchmarks.coverage_outputs import build as built
from benchmarks.coverage_outputs import detection_models, look, segmentation_models
from benchmarks.families import FAMILIES
from benchmarks.fixtures import prepared
from benchmarks.following import check
from benchmarks.taught import CLASSES, LESSONS, teach
from exporter.errors import ExporterError

_SIZES = {"inception_v3": 299}
"""torchvision's classifiers that do not take 224 pixels."""
_TRANSFORMERS = ("ResNet", "ViT", "Swin", "ConvNext", "Segformer")
_DRAWS = 5
"""Draws of random weights, of which the first that decides counts."""
_KEPT_HEADS = 97
"""Outputs of transformers' models, whose default of two tells little."""


@dataclass(frozen=True)
class Group:
    """Models that are counted together.

    Where ``look`` raises an `ExporterError`, the model is refused: right where that may be.

    Attributes:
        names: of its models.
        build: returns a model, with random weights, and the side of its square input.
        look: what is done with a built and prepared model.
        refusals: whether a refusal in one sentence is right, too.
    """

    names: Callable[[], tuple[str, ...]]
    build: Callable[[str], tuple[nn.Module, int]]
    look: Callable[[nn.Module, int], dict[str, Any]] | None = None
    refusals: bool = False


GROUPS: dict[str, Group] = {}
"""The groups of the JSON by name."""


def covered(module: nn.Module, side: int) -> dict[str, Any]:
    """Prepare and check one classifier.

    Args:
        module: with random weights.
        side: of its square input.

    Returns:
        The model's entry: what was taken, what was measured, and ``why`` where it failed.
    """
    prepared(module, size=(side, side))
    return check(module, size=(side, side)).entry()


def _torchvision_names() -> tuple[str, ...]:
    from torchvision import models

    return tuple(models.list_models(module=models))


def _torchvision(name: str) -> tuple[nn.Module, int]:
    from torchvision import models

    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **options), _SIZES.get(name, 224)


def _timm(family: str) -> tuple[nn.Module, int]:
    import timm

    options: dict[str, Any] = {"num_classes": CLASSES} if family in LESSONS else {}
    module: Any = timm.create_model(FAMILIES[family], **options)
    side = int(module.default_cfg["input_size"][-1])
    if family in LESSONS:
        module.learned = teach(module, side, *LESSONS[family])
    return module, side


def _covered_or_taught(module: Any, side: int) -> dict[str, Any]:
    if not hasattr(module, "learned"):
        return covered(module, side)
    return {**check(module, size=(side, side)).entry(), "learned": module.learned}


def _transformers(name: str) -> tuple[nn.Module, int]:
    import transformers

    options: dict[str, Any] = {"num_labels": _KEPT_HEADS}
    config = getattr(transformers, f"{name}Config")(**options)
    return getattr(transformers, f"{name}ForImageClassification")(config), 224


GROUPS["torchvision_classification"] = Group(_torchvision_names, _torchvision)
for _title, _names in (
    ("torchvision_segmentation", segmentation_models),
    ("torchvision_detection", detection_models),
):
    GROUPS[_title] = Group(_names, built, look=look)
GROUPS["timm"] = Group(lambda: tuple(FAMILIES), _timm, look=_covered_or_taught)
GROUPS["transformers"] = Group(lambda: _TRANSFORMERS, _transformers)
for _title, _names, _build in (
    ("transformers_small", lambda: tuple(configs.TRANSFORMERS), configs.build_transformers),
    ("segmentation_models_pytorch", configs.smp_names, configs.build_smp),
    ("monai", lambda: tuple(configs.MONAI), configs.build_monai),
    ("variants", lambda: tuple(configs.OTHERS), configs.build_other),
):
    GROUPS[_title] = Group(_names, _build, look=configs.examined, refusals=True)


def look_at(group: Group, name: str) -> dict[str, Any]:
    """Build one model and look at it; whatever goes wrong is said in ``why``.

    A draw of random weights that decides nothing (`benchmarks.following`) is drawn anew.
    """
    start = time.perf_counter()
    for draw in range(_DRAWS):
        entry = _drawn(group, name, draw)
        if not entry["why"] or entry.get("decided", True):
            break
    entry["draw"], entry["seconds"] = draw, round(time.perf_counter() - start, 1)
    return entry


def _drawn(group: Group, name: str, draw: int) -> dict[str, Any]:
    torch.manual_seed(draw)
    try:
        module, side = group.build(name)
        entry = (group.look or covered)(module, side)
    except ExporterError as error:
        entry = {"why": None if group.refusals else str(error), "refused": str(error)}
    except Exception as error:  # One model's failure must not end the count.
        said = str(error).strip().splitlines() or [""]
        entry = {"why": f"{type(error).__name__}: {said[0]}"}
    gc.collect()
    return entry


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at every model asked for, print the counts, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--only", action="append", choices=sorted(GROUPS), help="only this group")
    parser.add_argument("--model", action="append", help="only this model or family")
    parser.add_argument("--limit", type=int, help="the first so many models of each group")
    parser.add_argument("--shard", default="1/1", help="i/n: every n-th model, from the i-th")
    parser.add_argument("--log", type=Path, help="write each model's entry here as it is made")
    given = parser.parse_args(arguments)
    index, _, shards = given.shard.partition("/")
    if not (index.isdecimal() and shards.isdecimal() and 1 <= int(index) <= int(shards)):
        parser.error(f"--shard is {given.shard!r}; write i/n with i from 1 to n, such as 1/4")
    warnings.filterwarnings("ignore")
    known = {title: GROUPS[title].names() for title in given.only or GROUPS}
    unknown = set(given.model or ()).difference(*known.values())
    if unknown:
        parser.error(f"no model or family of {', '.join(known)} is called {min(unknown)!r}")
    counts: dict[str, dict[str, Any]] = {}
    below = False
    for title, every in known.items():
        group = GROUPS[title]
        wanted = [name for name in every if not given.model or name in given.model]
        wanted = wanted[int(index) - 1 :: int(shards)][: given.limit]
        failed: dict[str, str] = {}
        refused: dict[str, str] = {}
        shallower: dict[str, str] = {}
        entries = {}
        for name in wanted:
            entry = entries[name] = look_at(group, name)
            if entry["why"]:
                failed[name] = entry["why"]
            elif "refused" in entry:
                refused[name] = entry["refused"]
            elif entry["at"] != entry["layers"][-1]:
                shallower[name] = entry["at"]
            line = (
                f"{title} {name} {entry['seconds']} s: {entry['why'] or entry.get('refused', 'ok')}"
            )
            print(line, file=sys.stderr, flush=True)
            if given.log:
                with given.log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps({"group": title, "model": name, **entry}) + "\n")
        counts[title] = {
            "ok": len(wanted) - len(failed),
            "of": len(wanted),
            "failed": failed,
            "refused": refused,
            "followed_before_the_deepest": shallower,
        }
        below |= bool(failed)
    if given.json:
        print(json.dumps(counts, indent=1))
    else:
        for title, count in counts.items():
            print(
                f"{title}: {count['ok']} of {count['of']}, of these refused {len(count['refused'])}"
            )
            for name, why in (count["failed"] | count["refused"]).items():
                print(f"  {name}: {why}")
    return int(below)


if __name__ == "__main__":
    sys.exit(main())
