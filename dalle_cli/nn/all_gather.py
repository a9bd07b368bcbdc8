"""The contrastive loss over the batches of all processes, and the all-gather with gradients that it needs.

A process scores its own rows against everybody's columns, so that memory is (B, world * B), never the whole square
(Radford et al. 2021, section 2.5).
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

# Their names since torch 2.13, and before.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        out = x.new_empty(dist.get_world_size() * x.shape[0], *x.shape[1:])
        _all_gather(out, x.contiguous())
        return out

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        out = gradient.new_empty(gradient.shape[0] // dist.get_world_size(), *gradient.shape[1:])
        _reduce_scatter(out, gradient.contiguous())
        return out


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def all_gather_with_grad(x: Tensor) -> Tensor:
    """Return the rows of every process in the order of ranks; each row's gradient is the sum over the processes.

    x: (B, ...), the same shape on every process; returns (world * B, ...), or x itself in a single process.
    """
    return _AllGather.apply(x) if _distributed() and dist.get_world_size() > 1 else x


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Return the mean of the cross-entropies image to text and text to image; pairs are each other's target.

    image, text: (B, D) of unit length, the rows of this process; scale: factor of the cosines; returns a scalar, for
    these rows only. Averaged over processes, loss and gradients are those of the whole batch in one process.
    Source: Radford et al. 2021, section 2.3 and figure 3.
    """
    first = dist.get_rank() * len(image) if _distributed() else 0
    target = torch.arange(first, first + len(image), device=image.device)
    with torch.autocast(image.device.type, enabled=False):  # at a scale of 100, bf16 logits would be off by 0.4
        image, text = image.float(), text.float()
        all_images, all_texts = all_gather_with_grad(torch.stack([image, text], dim=1)).unbind(dim=1)  # (world * B, D)
        to_text = scale * image @ all_texts.T  # (B, world * B)
        to_image = scale * text @ all_images.T
        return (F.cross_entropy(to_text, target) + F.cross_entropy(to_image, target)) / 2
