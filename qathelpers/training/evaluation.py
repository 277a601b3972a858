"""Evaluate nets: always in fp32, so that everyone who loads the same weights gets the same accuracy."""

import torch
import torch.nn.functional as F
from torch import nn

from ..common import distributed, hardware
from ..data.batches import Batches, normalize


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
        images: Uint8 (n, 3, 32, 32).
        batch_size: Images per forward pass.

    Returns:
        Logits (n, classes) on the CPU.
    """
    net.eval()
    device = next(net.parameters()).device
    with torch.autocast(device.type, enabled=False):  # the caller's autocast would also round the normalized images
        return torch.cat([_logits(net, normalize(part.to(device))).cpu() for part in images.split(batch_size)])


def mean_loss_and_accuracy(total_loss: float, correct: int, total: int, device: torch.device) -> tuple[float, float]:
    """Return the mean loss and the accuracy over all processes, given the sums over the images of this process."""
    total_loss, correct, total = distributed.all_reduce([total_loss, correct, total], device)
    return total_loss / total, correct / total


def as_logits(output: torch.Tensor) -> torch.Tensor:
    """Return what a net returned as a float tensor; a net of Brevitas layers may return a QuantTensor."""
    return getattr(output, "value", output).float()


def _logits(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    # Under bf16 autocast, quantized activations round differently and nets lose up to one point of accuracy.
    with hardware.full_precision(), torch.autocast(images.device.type, enabled=False):
        return as_logits(net(images))
