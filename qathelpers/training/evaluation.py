"""Evaluate nets: always in fp32, so that everyone who loads the same weights gets the same accuracy."""

import torch
import torch.nn.functional as F
from torch import nn

from ..common import distributed, hardware
from ..common.errors import CourseError
from ..data.batches import Batches, normalize
from ..nets.architectures import spec_of
from ..nets.convnet import ConvNet
from ..nets.lenet import LeNet


@torch.no_grad()
def evaluate(net: nn.Module, batches: Batches, side: int | None = None) -> tuple[float, float]:
    """Return the loss and the accuracy of `net` in eval mode.

    Args:
        net: The net; it is left in eval mode.
        batches: Images and labels.
        side: Resize images to this height and width in pixels. A net that has only seen small images so far should be
            evaluated on images of that size.

    Returns:
        The mean cross-entropy in nats and the accuracy from 0 to 1.

    Raises:
        CourseError: If the net was built for images with another number of channels.
    """
    net.eval()
    total_loss, correct, total = 0.0, 0, 0
    for images, labels in batches.epoch(0, side):
        logits = _logits(net, images)
        total_loss += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(1) == labels).sum().item()
        total += len(labels)
    return mean_loss_and_accuracy(total_loss, correct, total, batches.labels.device)


@torch.no_grad()
def predict(net: nn.Module, images: torch.Tensor, batch_size: int = 1000) -> torch.Tensor:
    """Return the logits of `net` in eval mode, computed as in `evaluate`.

    Args:
        net: The net; it is left in eval mode and on its device.
        images: Uint8, RGB (n, 3, h, w) or grey (n, 1, h, w).
        batch_size: Images per forward pass.

    Returns:
        Logits (n, classes) on the CPU.

    Raises:
        CourseError: If the net was built for images with another number of channels.
    """
    net.eval()
    device = next(net.parameters()).device
    with torch.autocast(device.type, enabled=False):  # the caller's autocast would also round the normalized images
        return torch.cat([_logits(net, normalize(part.to(device))).cpu() for part in images.split(batch_size)])


def is_of_the_course(net: nn.Module) -> bool:
    """Return whether `net` is a ConvNet or LeNet of the course, not a subclass, which may compute something else."""
    return type(net) in (ConvNet, LeNet)


def in_its_format(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return images in the memory format for `net`.

    Channels-last is the fastest format for convolutions. A net that calls `view`, as in many tutorials, fails with
    it, so nets that are not of the course get PyTorch's default format.
    """
    is_fast = is_of_the_course(net)
    return images.contiguous(memory_format=torch.channels_last if is_fast else torch.contiguous_format)


def mean_loss_and_accuracy(total_loss: float, correct: int, total: int, device: torch.device) -> tuple[float, float]:
    """Return the mean loss and the accuracy over all processes, given the sums over the images of this process."""
    total_loss, correct, total = distributed.all_reduce([total_loss, correct, total], device)
    return total_loss / total, correct / total


def as_logits(output: object) -> torch.Tensor:
    """Return what a net returned as a float tensor; a net of Brevitas layers may return a QuantTensor.

    Raises:
        CourseError: If it is no tensor.
    """
    logits = getattr(output, "value", output)
    if not isinstance(logits, torch.Tensor):
        raise CourseError(
            f"The net returns a {type(output).__name__}, but the course needs one row of logits per image: wrap the "
            "net in a module that returns them alone."
        )
    return logits.float()


def _logits(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    # Under bf16 autocast, quantized activations round differently and nets lose up to one point of accuracy.
    try:
        with hardware.full_precision(), torch.autocast(images.device.type, enabled=False):
            return as_logits(net(in_its_format(net, images)))
    except RuntimeError as error:
        spec, channels = spec_of(net), images.shape[1]
        if spec.channels in (None, channels):
            raise
        raise CourseError(
            f"{spec.name} was built for images with channels={spec.channels}, but these images have {channels}: pass "
            f"other images, or build and train a net with channels={channels}."
        ) from error
