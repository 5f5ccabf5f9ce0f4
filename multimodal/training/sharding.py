"""A model in shards: each process holds a part of every weight, gradient and optimizer state (FSDP, https://arxiv.org/abs/2304.11277)."""

from __future__ import annotations

from collections.abc import Iterable

import lightning as L
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, fully_shard, register_fsdp_forward_method

from multimodal.training.optimization import zero_of

METHODS = ("training_step", "validation_step", "test_step", "predict_step", "features", "pictures")
"""What is called from outside and uses weights, which are gathered for as long as it runs."""


def is_sharded(module: nn.Module) -> bool:
    """Return whether a module or a part of it holds shards of its weights."""
    return any(isinstance(part, (FSDPModule, FullyShardedDataParallel)) for part in module.modules())


def shard(module: L.LightningModule, layers: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Shard a model over the processes of a mesh: its layers one by one, and what is left together.

    Args:
        module: the whole model; its class becomes one that gathers and scatters by itself.
        layers: those of its parts whose weights are gathered one after the other.
        mesh: of Lightning's ``ModelParallelStrategy``.

    Raises:
        ValueError: the strategy wants layers to be split.
    """
    if mesh["tensor_parallel"].size() > 1:
        raise ValueError(
            f"tensor_parallel_size is {mesh['tensor_parallel'].size()}, but single layers are not split over processes: set it to 1, "
            f"and data_parallel_size to the number of processes, {mesh.size()}."
        )
    for layer in layers:
        layer.register_forward_hook(_touch_parameters)
        fully_shard(layer, mesh=mesh["data_parallel"])
    fully_shard(module, mesh=mesh["data_parallel"])
    for part in module.modules():
        if mesh.device_type == "cpu" and isinstance(part, FSDPModule):
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no mean
    for name in METHODS:
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)


def _touch_parameters(layer: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    """Give all parameters of a layer a gradient where no token did: the ranks reduce the same gradients."""
    return output if len(output) else output + zero_of([layer])
