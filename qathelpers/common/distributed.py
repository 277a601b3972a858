"""Train one net in several processes: each process works on a shard of every batch, and all hold the same weights.

`torchrun --nproc_per_node=2 -m qathelpers train ...` starts the processes. Up to rounding, the result is the same as
with a single process, because gradients are summed over the whole batch and BatchNorm computes its statistics over the
whole batch. Only process 0 prints and writes files.
"""

import atexit
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from .errors import CourseError
from .words import counted

T = TypeVar("T")

# How long to wait for a process that does not answer. A process that dies is noticed at once.
TIMEOUT = timedelta(seconds=50)


def init() -> None:
    """Join the processes that torchrun started; do nothing when there is only one.

    Raises:
        CourseError: If this machine has GPUs, but fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available():
        _check_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", int(os.environ["LOCAL_RANK"]) + 1)))
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    _stay_on_this_machine()
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    # Leave the process group while Python still runs: a gloo thread that wakes up while the interpreter shuts down
    # aborts the process, and torchrun would report a finished training as failed.
    atexit.register(dist.destroy_process_group)


def _stay_on_this_machine() -> None:
    """Let gloo listen on the loopback interface only, if torchrun has started all processes on this machine.

    By default, gloo listens on the address of the machine's host name, and accepts every connection without
    authentication. torchrun's own store listens on all interfaces; this process cannot change that.
    """
    loopback = {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}  # Linux, macOS
    if loopback and os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback.pop())


def _check_gpus(processes: int) -> None:
    gpus = torch.cuda.device_count()
    if processes > gpus:
        raise CourseError(
            f"{processes} processes need {processes} GPUs, one each, but this machine has {gpus}: "
            f"start {gpus} with --nproc_per_node={gpus}."
        )


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, counted from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def check_last_batch(images: int, batch_size: int) -> None:
    """Check that each process gets at least one image of the last, possibly smaller batch of an epoch.

    Args:
        images: The number of training images.
        batch_size: The number of images per batch, over all processes.

    Raises:
        CourseError: If the last batch has fewer images than there are processes.
    """
    last = images % batch_size or batch_size
    if last < world_size():
        raise CourseError(
            f"The last batch has {counted(last, 'image')}, too few for {world_size()} processes: start fewer "
            "processes, or change batch_size."
        )


def from_first(make: Callable[[], T]) -> T:
    """Return what `make` returns in process 0, in all processes; the others do not call it.

    Raises:
        CourseError: In all processes, if `make` raises it in process 0.
    """
    if world_size() == 1:
        return make()
    result = [None]
    if rank() == 0:
        try:
            result = [(make(), None)]
        except CourseError as error:
            result = [(None, error)]
    dist.broadcast_object_list(result, 0)
    value, error = result[0]
    if error is not None:
        raise error
    return value


def check_same(values: dict[str, object], way_out: str) -> None:
    """Check that all processes have the same `values`; each process compares them, so all of them stop.

    Args:
        values: Plain values, by name.
        way_out: What to do if they differ, for the message.

    Raises:
        CourseError: If the values differ; the message names those that do.
    """
    if world_size() == 1:
        return
    gathered: list[dict] = [{} for _ in range(world_size())]
    dist.all_gather_object(gathered, values)
    for number, others in enumerate(gathered):
        keys = [key for key in gathered[0] | others if gathered[0].get(key) != others.get(key)]
        if keys:
            pairs = "; ".join(f"{key} is {gathered[0].get(key)!r} and {others.get(key)!r}" for key in keys[:3])
            raise CourseError(f"Processes 0 and {number} do not train the same: {pairs}. {way_out}")


def shard(batch: torch.Tensor) -> torch.Tensor:
    """Return the rows of `batch` that this process works on: every `world_size()`-th row, starting at `rank()`."""
    return batch[rank() :: world_size()]


def shard_weight(count: int, device: torch.device) -> float:
    """Return the fraction of the batch that this process holds.

    The mean loss over the batch is the mean loss over the shard, multiplied by this weight and summed over all
    processes.

    Args:
        count: The number of images in this process's shard.
        device: The device of the net, on which the processes exchange numbers.
    """
    return 1.0 if world_size() == 1 else count / all_reduce([count], device)[0]


def all_reduce(values: list[float], device: torch.device) -> list[float]:
    """Return the sums of `values` over all processes, which exchange them as a tensor on `device`."""
    if world_size() == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.tolist()


def all_reduce_gradients(net: nn.Module) -> None:
    """Replace the gradients of `net` by their sums over all processes."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))


def convert_sync_batchnorm(net: nn.Module) -> None:
    """Make the BatchNorm layers of `net` take their statistics from the whole batch instead of this process's shard.

    `net` is changed in place; the keys of its state_dict stay the same. torch.nn.SyncBatchNorm does the same, but only
    on GPUs.
    """
    if world_size() == 1:
        return
    synchronized = {nn.BatchNorm1d: SyncBatchNorm1d, nn.BatchNorm2d: SyncBatchNorm2d}
    for module in net.modules():
        module.__class__ = synchronized.get(type(module), type(module))


class _AllReduce(torch.autograd.Function):
    """Sum a tensor over all processes.

    The tensor of each process contributes to the loss of every process, so the gradients are summed as well.

    torch.distributed.nn.functional.all_reduce does the same, but PyTorch 2.14 deprecates it in favour of a private
    module.
    """

    @staticmethod
    def forward(context: object, part: torch.Tensor) -> torch.Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: object, gradient: torch.Tensor) -> torch.Tensor:
        return _AllReduce.forward(context, gradient)


class _SyncBatchNorm:
    """A mixin for nn.BatchNorm1d and nn.BatchNorm2d: statistics over the whole batch, in fp32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        x = x.float()
        dims = [0, *range(2, x.ndim)]  # all but the channels
        count = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        sums = _AllReduce.apply(torch.cat([x.sum(dims), x.square().sum(dims), count]))
        (total, squares), count = sums[:-1].chunk(2), sums[-1]
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        self._update_running_statistics(mean.detach(), (variance * count / (count - 1)).detach())
        scale = self.weight * (variance + self.eps).rsqrt()
        shape = [1, -1] + [1] * (x.ndim - 2)
        return x * scale.view(shape) + (self.bias - mean * scale).view(shape)

    def _update_running_statistics(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Update the running statistics as nn.BatchNorm does; with momentum=None they are means over all batches."""
        self.num_batches_tracked += 1
        momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class SyncBatchNorm1d(_SyncBatchNorm, nn.BatchNorm1d):
    """An nn.BatchNorm1d that uses the statistics of the whole batch."""


class SyncBatchNorm2d(_SyncBatchNorm, nn.BatchNorm2d):
    """An nn.BatchNorm2d that uses the statistics of the whole batch."""
