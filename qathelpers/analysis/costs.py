"""What a net costs: bytes for its weights, multiply-accumulate operations (MACs) and bit operations (BOPs)."""

import pandas as pd
import torch
from brevitas.nn import QuantIdentity, QuantReLU
from torch import nn

from ..nets import packing, weights
from ..nets.architectures import spec_of
from ..nets.stem import DCTStem

FLOAT_BITS = 32
IMAGE_BITS = 8  # per colour channel of a pixel
FILTER_BITS = 4  # the fixed filters of the stem are integers from -4 to 4


@torch.no_grad()
def layers(net: nn.Module, image: tuple[int, int, int] = (3, 32, 32)) -> pd.DataFrame:
    """Count what each layer of `net` costs for one image.

    Args:
        net: Any net made of convolutions and linear layers, with ReLU or Brevitas activations.
        image: The shape of one image (channels, height, width).

    Returns:
        One row per convolution, linear layer and fixed stem, with these columns:
        `weights`, the number of weights;
        `MACs`, the multiply-accumulate operations per image;
        `W` and `A`, the bits per weight (1.58 for three levels) and per input value;
        `bytes`, the size of the packed weights with their scales;
        `BOPs`, the bit operations per image: MACs x W x A, the cost of the multiplications in dedicated hardware.

    Reference:
        C. Baskin et al., UNIQ (arXiv 1804.10969), for the BOPs.
    """
    rows, quantized = [], weights.quantized_layers(net)
    packed, codebooks = packing.pack_net(net)
    names = {module: name for name, module in net.named_modules()}
    bits = IMAGE_BITS  # of the latest activations, which are the inputs of the next layer

    def weight_bits(name: str) -> float:
        if name not in quantized:
            return FLOAT_BITS
        return {2: 1, 3: 1.58}.get(codebooks[name]["levels"], float(quantized[name].quant_weight().bit_width))

    def after_activation(module: nn.Module, _: tuple, __: torch.Tensor) -> None:
        nonlocal bits
        bits = FLOAT_BITS if isinstance(module, nn.ReLU) else int(module.act_quant.bit_width())

    def after_layer(module: nn.Module, _: tuple, output: torch.Tensor) -> None:
        name, positions = names[module], output.shape[2:].numel()
        if isinstance(module, DCTStem):
            row = {"layer": name, "weights": 0, "MACs": module.filters.numel() * positions, "W": FILTER_BITS, "A": bits}
        else:
            count = module.weight.numel()
            row = {"layer": name, "weights": count, "MACs": count * positions, "W": weight_bits(name), "A": bits}
        row["bytes"] = sum(
            packed[key].nbytes for key in (f"{name}.weight", f"{name}.weight.threshold") if key in packed
        )
        rows.append(row | {"BOPs": round(row["MACs"] * row["W"] * row["A"])})

    hooks = [m.register_forward_hook(after_layer) for m in names if isinstance(m, nn.Conv2d | nn.Linear | DCTStem)]
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
    """Compare the costs of several nets: one row per net, with its packed size in kB, and millions of MACs and BOPs.

    MACs and BOPs are per image of 3 x 32 x 32 pixels; 1 kB is 1000 bytes.
    """
    rows = []
    for net in nets:
        table = layers(net)
        row = {
            "net": spec_of(net).name,
            "kB": round(packing.kilobytes(net), 1),
            "million MACs": round(table["MACs"].sum() / 1e6, 1),
        }
        rows.append(row | {"million BOPs": round(table["BOPs"].sum() / 1e6, 1)})
    return pd.DataFrame(rows).set_index("net")
