"""Evaluate nets: always in fp32, so that everyone who loads the same weights gets the same accuracy."""

import torch
import torch.nn.functional as F
from torch import nn

from ..common import distributed, hardware
from ..common.errors import CourseError
from ..data.batches import Batches, normalize
from ..nets.architectures import spec_of
from ..nets.convnet import ConvNet
from ..nets.fused_quantizers import fused
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
    tally = Tally()
    with fused(net):
        for images, labels in batches.epoch(0, side):
            tally.add(_logits(net, images), labels)
    return tally.means()


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
    # The caller's autocast would also round the normalized images.
    with torch.autocast(device.type, enabled=False), fused(net):
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


class Tally:
    """The losses and the hits of batches, kept on the device, so that no batch has to wait until they are known."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []  # one sum per batch
        self.hits: list[torch.Tensor] = []
        self.images = 0

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch, given its logits (n, classes) and labels (n,)."""
        self.losses.append(F.cross_entropy(logits, labels, reduction="sum"))
        self.hits.append((logits.argmax(1) == labels).sum())
        self.images += len(labels)

    def first_loss_that_is_not_finite(self) -> int | None:
        """Return the number of the first batch whose loss is NaN or infinite, counted from 0, or None."""
        broken = (~torch.stack(self.losses).isfinite()).nonzero() if self.losses else ()
        return int(broken[0]) if len(broken) else None

    def means(self) -> tuple[float, float]:
        """Return the mean loss and the accuracy over all processes."""
        losses, hits = torch.stack(self.losses), torch.stack(self.hits)
        sums = [sum(losses.tolist()), sum(hits.tolist()), self.images]
        loss, correct, images = distributed.all_reduce(sums, losses.device)
        return loss / images, correct / images


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
