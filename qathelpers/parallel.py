"""One training in several processes: each takes its share of every batch, and all hold the same net.

`torchrun --nproc_per_node=2 -m qathelpers train ...` starts them. The rule that makes the result that of one process:
gradients are summed over the whole batch, BatchNorm's statistics are those of the whole batch, and process 0 alone
prints and writes.
"""

import atexit
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from .errors import CourseError

PATIENCE = timedelta(seconds=50)  # with a process that does not answer; one that dies is noticed at once


def start() -> None:
    """Join the processes that torchrun has started; does nothing where there is one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    # While Python still runs: a thread of gloo that wakes up after its end aborts the process, and torchrun calls a
    # training that is done a failure.
    atexit.register(dist.destroy_process_group)


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def check(images: int, batch_size: int) -> None:
    """Raise CourseError when the last batch of an epoch has fewer images than there are processes."""
    last = images % batch_size or batch_size
    if last < size():
        raise CourseError(
            f"{size()} processes cannot share the last batch, of {last} images: start fewer, or change batch_size."
        )


def share(batch: torch.Tensor) -> torch.Tensor:
    """Return this process's part of `batch`, every `size()`-th row."""
    return batch[rank() :: size()]


def sum_of(values: list[float], device: torch.device) -> list[float]:
    """Return the sums of `values` over all processes."""
    if size() == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.tolist()


def sum_gradients(net: nn.Module) -> None:
    """Replace the gradients of `net` by their sums over all processes."""
    if size() == 1:
        return
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))


def weight(count: int, device: torch.device) -> float:
    """Return this process's part of a batch of which it holds `count` images, 0 to 1."""
    return 1.0 if size() == 1 else count / sum_of([count], device)[0]


def share_batchnorms(net: nn.Module) -> None:
    """Let the BatchNorms of `net` take their statistics from the whole batch, in place; its state keeps its names.

    torch.nn.SyncBatchNorm does this on GPUs alone.
    """
    if size() == 1:
        return
    shared = {nn.BatchNorm1d: SharedBatchNorm1d, nn.BatchNorm2d: SharedBatchNorm2d}
    for module in net.modules():
        module.__class__ = shared.get(type(module), type(module))


class _Sum(torch.autograd.Function):
    """A sum over all processes; each of its parts takes part in every process's loss."""

    @staticmethod
    def forward(context: object, part: torch.Tensor) -> torch.Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: object, gradient: torch.Tensor) -> torch.Tensor:
        return _Sum.forward(context, gradient)


class _Shared:
    """What makes a BatchNorm one over the batches of all processes together."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or size() == 1:
            return super().forward(x)
        x = x.float()
        places = [0, *range(2, x.ndim)]
        count = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        sums = _Sum.apply(torch.cat([x.sum(places), x.square().sum(places), count]))
        (total, squares), count = sums[:-1].chunk(2), sums[-1]
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        self._remember(mean.detach(), (variance * count / (count - 1)).detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        shape = [1, -1] + [1] * (x.ndim - 2)
        return x * scale.view(shape) + (self.bias - mean * scale).view(shape)

    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Update the running statistics as nn.BatchNorm does; without a momentum they are means over the batches."""
        self.num_batches_tracked += 1
        momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class SharedBatchNorm1d(_Shared, nn.BatchNorm1d):
    """nn.BatchNorm1d with the statistics of the whole batch."""


class SharedBatchNorm2d(_Shared, nn.BatchNorm2d):
    """nn.BatchNorm2d with the statistics of the whole batch."""
