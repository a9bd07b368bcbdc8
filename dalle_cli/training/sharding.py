"""Sharded training: each process holds a slice of all weights, gradients, moments and averages (torch's FSDP2).

The code path is the same for GPUs and CPUs, so the tests over gloo cover what runs over NCCL. Accelerate supplies the
processes, the precision, clipping and the optimizer's wrapper; its own FSDP2 path, only for GPUs, calls the same
`fully_shard`. Only this file knows that a sharded tensor is a DTensor. Files hold whole tensors, so a run can resume
sharded or not, on any number of processes.
Source: Rajbhandari et al. 2020 (ZeRO, stage 3); Zhao et al. 2023 (FSDP).
"""

import os
from typing import Any

import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def wanted(setting: bool) -> bool:
    """Return whether to shard: the recipe's `train.fsdp`, or `accelerate launch --use_fsdp`.

    The latter is removed from the environment, since Accelerate would wrap the model differently.
    """
    return os.environ.pop("ACCELERATE_USE_FSDP", "").lower() == "true" or setting


def shard(task: Any, layout: Accelerator) -> nn.Module:
    """Shard the trainable parameters of a task over the processes; return it with its forward pass in their precision.

    The blocks of its model are gathered one at a time when they compute, the rest with the task. Frozen models are not
    sharded, nor are scalars, whose gradients are averaged here.
    """
    mesh = init_device_mesh(layout.device.type, (layout.num_processes,))
    unsharded = set()
    for parameter in task.parameters():
        if not parameter.requires_grad:
            unsharded.add(parameter)
        elif parameter.ndim == 0:
            unsharded.add(parameter)
            parameter.register_post_accumulate_grad_hook(_average)
    for part in [*blocks(task.model), task]:  # sharded between calls, as EMA and saving expect
        fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=unsharded)
    return layout.prepare_model(task, device_placement=False, evaluation_mode=True)


def _average(parameter: Tensor) -> None:
    """Average a gradient over the processes; averaging an already averaged sum again does not change it."""
    assert parameter.grad is not None
    dist.all_reduce(parameter.grad)
    parameter.grad /= dist.get_world_size()


def blocks(module: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of transformers and U-Nets: the members of the outermost lists of modules."""
    members = []
    for child in module.children():
        members += list(child) if isinstance(child, nn.ModuleList) else blocks(child)
    return members


def whole(tensor: Tensor) -> Tensor:
    """Return an unsharded tensor. Every process must call it for the same tensors, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return this process's slice of a tensor, or the tensor if it is not sharded; the memory is the same."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, other: Any) -> Tensor:
    """Return a whole tensor, the same in every process, on the device of `other` and sharded like it."""
    tensor = tensor.to(other.device)
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)
