"""Sharded training: each process keeps a slice of all weights, gradients, moments and averages (torch's FSDP2).

One path for GPUs and CPUs, so that what the tests run over gloo is what runs over NCCL. Accelerate supplies the
processes, the precision, clipping and the optimiser's wrapper; its own way to FSDP2, which only GPUs take, ends in the
same `fully_shard`. A sharded tensor is a DTensor; that is known here and nowhere else. Files hold whole tensors, and so
a run goes on sharded or not, on any number of processes.
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
    """Whether to shard: the recipe's `train.fsdp`, or what `accelerate launch --use_fsdp` asks for.

    That is taken from the environment, since Accelerate would wrap the model in its own way.
    """
    return os.environ.pop("ACCELERATE_USE_FSDP", "").lower() == "true" or setting


def shard(task: Any, layout: Accelerator) -> nn.Module:
    """Spread the trainable parameters of a task over the processes; returns it with its forward in their precision.

    The blocks of its model are gathered one at a time when they compute, the rest with the task. Frozen companions
    stay whole, as do scalars, whose gradients are averaged here.
    """
    mesh = init_device_mesh(layout.device.type, (layout.num_processes,))
    whole_ones = set()
    for parameter in task.parameters():
        if not parameter.requires_grad:
            whole_ones.add(parameter)
        elif parameter.ndim == 0:
            whole_ones.add(parameter)
            parameter.register_post_accumulate_grad_hook(_average)
    for part in [*blocks(task.model), task]:  # always sharded between calls: what looks on must find it so
        fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=whole_ones)
    return layout.prepare_model(task, device_placement=False, evaluation_mode=True)


def _average(parameter: Tensor) -> None:
    """Over the processes; of parts that accumulate, what was averaged before stays as it is."""
    assert parameter.grad is not None
    dist.all_reduce(parameter.grad)
    parameter.grad /= dist.get_world_size()


def blocks(module: nn.Module) -> list[nn.Module]:
    """The repeated blocks of transformers and U-Nets: the members of lists of modules, the outermost ones."""
    found = []
    for child in module.children():
        found += list(child) if isinstance(child, nn.ModuleList) else blocks(child)
    return found


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor. Every process must call it for the same tensors, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This process's slice of a tensor, or all of one that is not sharded; shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, other: Any) -> Tensor:
    """A whole tensor, the same in every process, on the device of `other` and sharded as that is."""
    tensor = tensor.to(other.device)
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor, other.device_mesh, other.placements, src_data_rank=None)
