"""Models that are wrapped to be trained by several processes: taken out, or refused; none waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import exporter
from exporter.errors import ModelError
from exporter.models import adopt
from tests.small import small


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_ddp_is_taken_off_so_that_no_rank_waits_for_another() -> None:
    model = small()
    wrapped = DistributedDataParallel(model)
    wrapped.register_forward_pre_hook(lambda *_: pytest.fail("its forward waits for the others"))
    assert adopt(wrapped).module is model
    assert "inside the DistributedDataParallel" in adopt(wrapped).notes[0]
    inputs = torch.rand(2, 3, 32, 32)
    maps = [exporter.compute_maps(each, inputs, layers=["2"]) for each in (wrapped, model)]
    assert all(torch.equal(maps[0][key], maps[1][key]) for key in maps[1])
    with pytest.raises(ModelError, match=r"the layer '0' is a DistributedDataParallel, .*\.module"):
        adopt(nn.Sequential(wrapped))


def test_of_an_average_of_weights_the_module_inside_is_explained() -> None:
    averaged = AveragedModel(small())
    assert adopt(averaged).module is averaged.module
    inputs = torch.rand(2, 3, 32, 32)
    maps = [exporter.compute_maps(m, inputs, layers=["2"]) for m in (averaged, averaged.module)]
    assert all(torch.equal(maps[0][key], maps[1][key]) for key in maps[1])


@pytest.mark.usefixtures("group")
def test_a_model_whose_parameters_are_cut_is_refused() -> None:
    class Own(FullyShardedDataParallel):
        pass

    whole = Own(small(), device_id=torch.device("cpu"))
    by_layer = small()
    mesh = init_device_mesh("cpu", (1,))
    fully_shard(by_layer[0], mesh=mesh)
    for model, named in ((whole, "the model is sharded"), (by_layer, "the layer '0' is sharded")):
        said = rf"{named} \(FSDP\): each process holds a part .* without FSDP$"
        with pytest.raises(ModelError, match=said):
            adopt(model)
        with pytest.raises(ModelError, match=said):
            exporter.compute_maps(model, torch.rand(2, 3, 32, 32))
    tensor_parallel = small()
    parameter = torch.distributed.tensor.distribute_tensor(tensor_parallel[6].bias, mesh)
    tensor_parallel[6].bias = nn.Parameter(parameter)
    with pytest.raises(ModelError, match=r"'6.bias' is a DTensor, .* \.full_tensor\(\) and load"):
        adopt(tensor_parallel)
