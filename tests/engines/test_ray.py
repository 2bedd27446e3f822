"""The engine ``ray`` on a cluster of two nodes, which loses a worker and a node on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import exporter
from exporter.errors import ConfigError, ModelError
from exporter.watch import Watch
from tests.equal import differences
from tests.small import small

pytestmark = pytest.mark.slow
ray: Any = pytest.importorskip("ray")

MODEL = """
import os, signal, sys, time
from pathlib import Path
import tests.small
from torch import nn

HERE = Path(__file__).parent

class Eventful(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, inputs):
        if "default_worker" in sys.argv[0]:  # in a process of Ray's
            self.calls += 1
            if (HERE / "slow").exists():
                time.sleep(0.3)
            if self.calls > 9 and (HERE / "kill").exists():
                (HERE / "kill").rename(HERE / "killed")
                os.kill(os.getpid(), signal.SIGKILL)
        return inputs

def build():
    return nn.Sequential(Eventful(), tests.small.small())
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    (folder / "model.py").write_text(MODEL)
    (folder / "photos").mkdir()
    noise = np.random.default_rng(0)
    for index in range(24):
        picture = noise.integers(0, 255, (40, 48, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"photos/{index:02d}.jpg"), picture)
    (folder / "run.toml").write_text(
        "maps = ['gradcam']\nlayers = ['1.2']\nbatch_size = 2\nshard_size = 2\nwriters = []\n"
        "[preprocessing]\nsize = 32\n"
    )
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=node)
    ray.init(address=started.address, log_to_driver=False)
    yield started
    ray.shutdown()
    started.shutdown()


def export(place: Path, out: str, **settings: Any) -> exporter.Run:
    return exporter.export(
        f"{place / 'model.py'}:build", place / "photos", out=place / out,
        config=place / "run.toml", **settings,
    )  # fmt: skip


class Told(Watch):
    """Hears what is said, and does something once some images are done."""

    def __init__(self, after: int = 0, do: Callable[[], object] = lambda: None) -> None:
        self.lines: list[str] = []
        self.done, self._after, self._do = 0, after, do

    def say(self, line: str) -> None:
        self.lines.append(line)

    def advance(self, steps: int = 1) -> None:
        self.done += steps
        if self._after and self.done >= self._after:
            self._after = 0
            self._do()


def test_a_cluster_makes_the_run_of_one_process_and_outlives_a_worker_and_a_node(
    place: Path, cluster: Any
) -> None:
    whole = export(place, "whole")
    second = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    cluster.wait_for_nodes()
    told = Told()
    assert differences(export(place, "plain", engine="ray", watch=told), whole) == []
    assert not any("lost" in line for line in told.lines)

    (place / "kill").touch()
    told = Told()
    assert differences(export(place, "worker", engine="ray", watch=told), whole) == []
    assert (place / "killed").exists()
    assert sum("a Ray worker was lost" in line for line in told.lines) == 1

    (place / "slow").touch()
    told = Told(4, lambda: cluster.remove_node(second, allow_graceful=False))
    assert differences(export(place, "node", engine="ray", watch=told), whole) == []
    assert any("a Ray worker was lost" in line for line in told.lines)
    (place / "slow").unlink()


def test_what_fails_in_a_worker_is_said_and_ends_the_run(place: Path, cluster: Any) -> None:
    model = f"{place / 'broken.py'}:build"
    (place / "broken.py").write_text(
        "import sys\nfrom tests.small import small\n"
        "def build():\n"
        "    if 'default_worker' in sys.argv[0]:\n"
        "        raise ValueError('no weights on this node')\n"
        "    return small()\n"
    )
    settings: dict[str, Any] = {"config": place / "run.toml", "layers": ["1"], "engine": "ray"}
    with pytest.raises(ModelError, match="ValueError: no weights on this node"):
        exporter.export(model, place / "photos", out=place / "broken", **settings)
    with pytest.raises(ConfigError, match="handed over in Python and the engine 'ray'"):
        exporter.export(small(), place / "photos", out=place / "handed", **settings)
