"""Compare every map method with its reference, and everything that must not matter to a map.

    python -m benchmarks.parity --json
    python -m benchmarks.parity --only gradcam --only layercam --quick

The exit status is 1 where anything misses; ``missed`` in the JSON says what. Largest differences
are in units of the map's range.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.parity import behaviour, formats, methods, peers, state
from benchmarks.parity.counts import Tally
from benchmarks.parity.references import PERTURBATION, SPELLED
from benchmarks.parity.subjects import QUICK, SUBJECTS
from exporter.errors import MapError
from exporter.maps import METHODS, get_methods

BEHAVIOURS = ("batch", "frozen", "inplace", "no_grad", "inference_mode", "logit_scale")
BEHAVING = (*QUICK, "mobilenet_v3_small", "resnet18")
"""Architectures on which what must not matter is compared: those whose head is known."""


class Parity:
    """One run over some methods and architectures."""

    def __init__(
        self, names: Sequence[str], architectures: Sequence[str], *, quick: bool = False
    ) -> None:
        """Take the registry names, the architectures, and whether few images will do."""
        self.names, self.architectures, self._quick = names, architectures, quick
        self.missed: list[dict[str, Any]] = []
        self.not_counted: methods.NotCounted = {}
        self.ratios: dict[str, dict[str, formats.Ratios]] = {}
        parts = ("methods", "captum", "grad-cam", "formats", *BEHAVIOURS, "state")
        self.tallies = {part: Tally(part, self.missed) for part in parts}

    def look_at(self, architecture: str) -> None:
        """Compare everything on one architecture."""
        subject, names = SUBJECTS[architecture], self.names
        found, shown = methods.compare(
            architecture, names, self.tallies["methods"], self.not_counted
        )
        peers.compare_captum(architecture, found, shown, self.tallies["captum"])
        peers.compare_gradcam(architecture, found, shown, self.tallies["grad-cam"])
        formats.compare(architecture, names, self.ratios, images=1 if self._quick else 3)
        if architecture in BEHAVING:
            # Perturbation methods, which are dear, on one architecture only.
            some = [one for one in names if architecture in QUICK or one not in PERTURBATION]
            behaviour.Behaviour(architecture, some, self.tallies, quick=self._quick).compare()
            state.compare(architecture, some, self.tallies["state"])
        subject.forget()

    def json(self) -> dict[str, Any]:
        """Judge the formats, and return everything that was counted."""
        formats.judge(self.ratios, self.tallies["formats"])
        counted = self.tallies["methods"].json()
        for entry in counted.values():
            entry["reference"] = "formula"
        for peer in ("captum", "grad-cam"):
            for name, entry in self.tallies[peer].json().items():
                counted[name]["reference"] += f", {peer}"
                counted[name][peer] = entry
        made: dict[str, Any] = {
            "methods": counted,
            "settings": {name: SPELLED[name] for name in self.names if name in SPELLED},
            "not_counted": self.not_counted,
            "formats": {
                name: {method: ratio.json() for method, ratio in entries.items()}
                for name, entries in self.ratios.items()
            },
        }
        made |= {part: self.tallies[part].summary() for part in (*BEHAVIOURS, "state")}
        made["logit_scale"]["exceptions"] = {
            name: why for name, why in behaviour.BY_DEFINITION.items() if name in self.names
        }
        made["missed"] = self.missed
        return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare what is asked for, print the counts, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--only", action="append", metavar="METHOD", help="only this method")
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(QUICK)}, few images")
    parser.add_argument("--model", action="append", choices=SUBJECTS, help="only this architecture")
    given = parser.parse_args(arguments)
    try:
        names = [one.name for one in get_methods(given.only or METHODS)]
    except MapError as error:
        parser.error(str(error))
    warnings.filterwarnings("ignore")
    random.seed(0)
    np.random.seed(0)
    chosen = given.model or (QUICK if given.quick else tuple(SUBJECTS))
    parity = Parity(names, chosen, quick=given.quick)
    start = time.perf_counter()
    for architecture in parity.architectures:
        parity.look_at(architecture)
        line = f"{architecture}: {len(parity.missed)} missed, {time.perf_counter() - start:.0f} s"
        print(line, file=sys.stderr, flush=True)
    made = parity.json()
    if given.json:
        print(json.dumps(made, indent=1))
    else:
        for name, entry in made["methods"].items():
            print(f"{name}: {entry['largest']} in {entry['cases']} maps ({entry['reference']})")
        for miss in parity.missed:
            print(json.dumps(miss))
    return int(bool(parity.missed))


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
