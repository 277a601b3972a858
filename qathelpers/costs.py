"""What a net costs where it runs: bytes of its weights, multiplications, and bits that have to be multiplied."""

import pandas as pd
import torch
from brevitas.nn import QuantIdentity, QuantReLU
from torch import nn

from . import packing, weights
from .frequencies import Frequencies

FLOAT_BITS = 32
IMAGE_BITS = 8  # what a pixel's colour has
PATTERN_BITS = 4  # the fixed stem's filters are integers from -4 to 4


@torch.no_grad()
def layers(net: nn.Module, image: tuple[int, int, int] = (3, 32, 32)) -> pd.DataFrame:
    """Return a row a convolution, linear layer or fixed stem of `net`, for one `image` (channels, height, width).

    `weights` and `MACs` (multiplications, each with an addition) are counts; `W` and `A` the bits of a weight (1.58 for
    three levels) and of an input; `bytes` those of the packed weights with their scales; `bit operations` the product
    of MACs, W and A, which is what the multiplication costs in hardware that is made for it.
    Source of the bit operations: C. Baskin et al., UNIQ (arXiv 1804.10969).
    """
    rows, quantized = [], weights.quantized_layers(net)
    packed, alphabets = packing.pack_net(net)
    names = {module: name for name, module in net.named_modules()}
    bits = IMAGE_BITS  # of what the last activation before a layer gave

    def width(name: str) -> float:
        if name not in quantized:
            return FLOAT_BITS
        return {2: 1, 3: 1.58}.get(alphabets[name]["levels"], float(quantized[name].quant_weight().bit_width))

    def after_activation(module: nn.Module, _: tuple, __: torch.Tensor) -> None:
        nonlocal bits
        bits = FLOAT_BITS if isinstance(module, nn.ReLU) else int(module.act_quant.bit_width())

    def after_layer(module: nn.Module, _: tuple, output: torch.Tensor) -> None:
        name, places = names[module], output.shape[2:].numel()
        if isinstance(module, Frequencies):
            row = {"layer": name, "weights": 0, "MACs": module.filters.numel() * places, "W": PATTERN_BITS, "A": bits}
        else:
            count = module.weight.numel()
            row = {"layer": name, "weights": count, "MACs": count * places, "W": width(name), "A": bits}
        row["bytes"] = sum(
            packed[key].nbytes for key in (f"{name}.weight", f"{name}.weight.threshold") if key in packed
        )
        rows.append(row | {"bit operations": round(row["MACs"] * row["W"] * row["A"])})

    hooks = [m.register_forward_hook(after_layer) for m in names if isinstance(m, nn.Conv2d | nn.Linear | Frequencies)]
    hooks += [
        m.register_forward_hook(after_activation) for m in names if isinstance(m, nn.ReLU | QuantReLU | QuantIdentity)
    ]
    was_training = net.training
    try:
        net.eval()(torch.zeros(1, *image, device=next(net.parameters()).device))
    finally:
        net.train(was_training)
        for hook in hooks:
            hook.remove()
    return pd.DataFrame(rows).set_index("layer")


def summary(nets: list[nn.Module]) -> pd.DataFrame:
    """Return a row a net: kilobytes (packed), millions of MACs and of bit operations an image."""
    rows = []
    for net in nets:
        table = layers(net)
        row = {
            "net": net.name,
            "kB": round(packing.kilobytes(net), 1),
            "million MACs": round(table["MACs"].sum() / 1e6, 1),
        }
        rows.append(row | {"million bit operations": round(table["bit operations"].sum() / 1e6, 1)})
    return pd.DataFrame(rows).set_index("net")
