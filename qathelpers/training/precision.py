"""The precision of a training, and the scaled loss of a training in fp16."""

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..common import hardware
from ..data.dataset import Dataset
from .checks import logits_for_two_images

LARGE = 30_000_000  # MACs per image; convnet has 15 million, sharpnet has 49 million
# Gradients of the mean loss are so small that many of them would become 0 in fp16. For batches of 256, this scale turns
# them into the gradients of the summed loss. On a logarithmic scale, these lie midway between the smallest and the
# largest number of fp16.
LOSS_SCALE = 256


def precision(net: nn.Module, dataset: Dataset, device: torch.device) -> str:
    """Return the precision in which `net` is trained on `device`: "bf16", "fp16" or "fp32".

    On GPUs with fp16 but without bf16, this depends on the number of MACs per image.

    Raises:
        CourseError: If the number of MACs is needed, and the net cannot process the images of `dataset`.
    """
    small, large = (hardware.precision(device, is_large) for is_large in (False, True))
    if small == large:
        return small
    with _CountMACs() as counter:
        logits_for_two_images(net, dataset.train_images[:1])
    return large if counter.macs / 2 >= LARGE else small


def unscale_gradients(net: nn.Module) -> torch.Tensor:
    """Divide the gradients of `net` by `LOSS_SCALE`; return whether one of them is NaN or infinite.

    The result stays on the device. If it were read here, the CPU would have to wait until the GPU has finished the
    step.
    """
    gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    found, factor = (torch.full((1,), value, device=gradients[0].device) for value in (0.0, 1 / LOSS_SCALE))
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, factor)  # as in torch.amp.GradScaler
    return found.bool()


class _CountMACs(TorchDispatchMode):
    """Count the multiply-accumulate operations of convolutions and matrix products.

    FlopCounterMode counts the same, but its hooks do not work with modules that are called under `torch.no_grad`.
    """

    macs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            self.macs += flop_registry[func._overloadpacket](*args, **kwargs, out_val=result) // 2
        return result
