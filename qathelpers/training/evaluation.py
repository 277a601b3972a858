"""Evaluate nets: always in fp32, so that everyone who loads the same weights gets the same accuracy."""

import torch
import torch.nn.functional as F
from torch import nn

from ..common import distributed, hardware
from ..common.errors import CourseError, check_type, check_whole, raise_if_of_the_machine
from ..common.tensors import check_values
from ..data.batches import Batches, normalize
from ..nets import weights
from ..nets.architectures import spec_of
from ..nets.fused_quantizers import fused
from ..nets.identity import PACKAGES


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
        CourseError: If an argument has the wrong type, the net cannot process these images, or it has too few outputs.
        ValueError: If `side` is out of range.
    """
    weights.check_net(net)
    check_type("batches", batches, Batches, "data.Batches(dataset.test_images, dataset.test_labels)")
    if side is not None:
        check_whole("side", side, 2)
    net.eval()
    highest, tally = int(batches.labels.max()), Tally()
    layout = batches.memory_format if accepts_channels_last(net) else torch.contiguous_format
    with fused(net):
        for images, labels in batches.epoch(0, side):
            logits = _logits(net, images.contiguous(memory_format=layout))
            if logits.ndim != 2 or logits.shape[1] <= highest:
                raise CourseError(
                    f"{spec_of(net).name} returns logits {tuple(logits.shape)} for {len(images)} images with labels up "
                    f"to {highest}: build and train a net with one output per class."
                )
            tally.add(logits, labels)
    return tally.means()


@torch.no_grad()
def predict(net: nn.Module, images: torch.Tensor, batch_size: int = 1000) -> torch.Tensor:
    """Return the logits of `net` in eval mode, computed as in `evaluate`, on an NVIDIA GPU if there is one.

    Args:
        net: The net; it is left in eval mode and on its device.
        images: Uint8, RGB (n, 3, h, w) or grey (n, 1, h, w).
        batch_size: Images per forward pass.

    Returns:
        Logits (n, classes) on the CPU.

    Raises:
        CourseError: If an argument has the wrong type, if the net cannot process these images, or if the memory is used
            up.
        ValueError: If `batch_size` is not a whole number of at least 1.
    """
    weights.check_net(net)
    check_type("images", images, torch.Tensor, "a uint8 tensor (n, 3, h, w), such as dataset.test_images")
    check_values("images", images)
    if images.dtype != torch.uint8:
        raise CourseError(
            f"images are {images.dtype}: pass uint8 pixels from 0 to 255, as in dataset.test_images; predict "
            "normalizes them itself."
        )
    check_whole("batch_size", batch_size, 1)
    net.eval()
    advice = f"pass a smaller batch_size than {batch_size}, or shut down the kernels of other notebooks"
    with hardware.enough_memory(advice), hardware.on_gpu(net) as device, fused(net), _without_autocast(device):
        layout = memory_format(net, device)
        parts = (normalize(part.to(device)).contiguous(memory_format=layout) for part in images.split(batch_size))
        return torch.cat([_logits(net, part).cpu() for part in parts])


def accepts_channels_last(net: nn.Module) -> bool:
    """Return whether `net` runs no code but that of PyTorch, torchvision, Brevitas and the course.

    Their modules accept images in channels-last format. Other code may call `view`, which fails with it.
    """
    forwards = (module.forward for module in net.modules() if not isinstance(module, nn.ModuleList | nn.ModuleDict))
    return all(getattr(forward, "__module__", "").split(".")[0] in PACKAGES for forward in forwards)


def memory_format(net: nn.Module, device: torch.device, precision: str = "fp32") -> torch.memory_format:
    """Return the memory format for `net` and its images: the fastest of the device, wherever the net accepts it."""
    return hardware.memory_format(device, precision) if accepts_channels_last(net) else torch.contiguous_format


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


def _without_autocast(device: torch.device) -> torch.autocast:
    """Return a context in which the caller's autocast is off, which would also round the normalized images."""
    return torch.autocast(device.type, enabled=False)


def _logits(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    # Under bf16 autocast, quantized activations round differently and nets lose up to one point of accuracy.
    try:
        with hardware.full_precision(), _without_autocast(images.device):
            return as_logits(net(images))
    except CourseError:
        raise
    except Exception as error:  # a net of your own can raise anything
        raise_if_of_the_machine(error)
        raise cannot_process(net, images.shape, error) from error


def cannot_process(net: nn.Module, shape: torch.Size, error: Exception) -> CourseError:
    """Return the exception for a net that raised `error` for images of this shape; it says what to change."""
    spec, (channels, height, width) = spec_of(net), shape[1:]
    kinds = sorted({str(p.dtype) for p in net.parameters() if p.is_floating_point() and p.dtype != torch.float32})
    expected = spec.channels or _input_channels(net)
    if kinds:
        way_out = f"its parameters are {kinds[0]}, so convert it with net.float()"
    elif expected not in (None, channels):
        way_out = f"pass images with channels={expected}, or build and train a net with channels={channels}"
    elif spec.image_size not in (None, height):
        way_out = f"pass images of {spec.image_size} x {spec.image_size}, or build a net with image_size={height}"
    else:
        way_out = "pass images of the size that it was made for, or look for the cause in its forward"
    reason = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
    return CourseError(
        f"{spec.name} cannot process images of {channels} x {height} x {width} (channels x height x width): {way_out} "
        f"({reason})."
    )


def _input_channels(net: nn.Module) -> int | None:
    """Return the number of channels that the first convolution of `net` expects; None if there is no convolution."""
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    return first and first.in_channels
