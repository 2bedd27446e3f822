"""A run in the hand: its table, images by path, and overlays of what the model is least sure of.

    python examples/run_in_hand.py --out runs/examples

The bundled photographs go through the demo's model once; everything after that reads the run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pictures import SMALL, arguments, lay_out, save

import exporter
from exporter.demo import photographs
from exporter.render import decode_image

SHOWN = 3


def main(out: Path, *, small: bool = False, model: str = "demo", weights: str = "DEFAULT") -> Path:
    """Run a model over the photographs and write overlays of three of them as one picture."""
    run = exporter.export(
        model,
        photographs(),
        out=out / "run",
        overwrite=True,
        maps=["gradcam", "layercam"],
        weights="none" if small else weights,
        limit=SHOWN if small else None,
        preprocessing={"size": SMALL, "resize": SMALL} if small else {},
        writers=(),
    )

    # One row per image, without pictures and maps; table.to_pandas() is a data frame.
    table = run.table(["path", "predictions"])
    assert len(table) == len(run.plan.images) >= SHOWN
    least_sure = sorted(table.to_pylist(), key=lambda row: row["predictions"][0]["score"])[:SHOWN]

    rows = []
    for row in least_sure:
        path, said = row["path"], row["predictions"][0]
        view = decode_image(run.image(path))
        tiles = [(f"{path}: {said['name']} {said['score']:.2f}", view)]
        deepest, above = run.plan.deepest, run.plan.explained[-2]
        for method, layer in (("gradcam", deepest), ("layercam", above)):
            overlay = run.overlay(path, method, layer)
            tiles.append((f"{method} at {layer}", np.asarray(overlay)))
        rows.append(tiles)

        # The same image by its file, at the deepest layer, which need not be named.
        same = run.overlay(photographs() / path, "gradcam")
        assert np.array_equal(np.asarray(same), tiles[1][1])
        raw = run.map(run.row(path).id, "gradcam")  # signed, at the layer's own resolution
        assert np.array_equal(raw, run.map(path, "gradcam", deepest))
    return save(lay_out(rows, f"{run.plan.model.name}, least sure first"), out / "run_in_hand.jpg")


if __name__ == "__main__":
    given = arguments(__doc__, models=("demo",))
    print(main(given.out, model=given.model[0], weights=given.weights))
