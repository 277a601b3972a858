"""Quantized weights in as few bits as they need: 8 binary ones to a byte, 5 ternary ones, 4 of two bits, 2 of four."""

import re

import pandas as pd
import torch
from torch import nn

from . import weights
from .errors import check_whole

OF_A_QUANTIZER = re.compile(r"\.\w+_quant\.")  # in the name of a tensor


def per_byte(levels: int) -> int:
    """Return how many numbers with `levels` values (2 to 256) fit into a byte: 8 for 2, 5 for 3, 2 for 15."""
    if not isinstance(levels, int) or not 2 <= levels <= 256:
        raise ValueError(f"a byte holds numbers with 2 to 256 values, not {levels}")
    count = 1
    while levels ** (count + 1) <= 256:
        count += 1
    return count


def pack(integers: torch.Tensor, lowest: int, step: int, levels: int) -> torch.Tensor:
    """Return `integers` (any shape) out of lowest, lowest + step, ... (`levels` values) as uint8, several to a byte.

    A byte holds the digits of one number in base `levels`, the first integer as the lowest digit: for two levels these
    are bits, for three 5 digits make 3**5 = 243 of the 256 values. Raises ValueError for any other integer.
    """
    check_whole("step", step, 1)
    offsets = integers.flatten().long() - lowest
    digits = offsets // step
    if (
        (integers.flatten() != offsets + lowest).any()
        or (digits * step != offsets).any()
        or (digits < 0).any()
        or (digits >= levels).any()
    ):
        raise ValueError(f"not all integers are of the {levels} from {lowest} to {lowest + step * (levels - 1)}")
    count = per_byte(levels)
    padded = nn.functional.pad(digits, (0, -len(digits) % count)).view(-1, count)
    return (padded * levels ** torch.arange(count)).sum(1).to(torch.uint8)


def unpack(packed: torch.Tensor, shape: list[int], lowest: int, step: int, levels: int) -> torch.Tensor:
    """Return the integers, int64 of `shape`, that `pack` made `packed` of; raises ValueError when it holds too few."""
    count, size = per_byte(levels), torch.Size(shape).numel()
    if len(packed) != -(-size // count):
        raise ValueError(f"{len(packed)} bytes do not hold {size} integers of {levels} levels")
    digits = packed.long().unsqueeze(1) // levels ** torch.arange(count) % levels
    return digits.flatten()[:size].view(shape) * step + lowest


@torch.no_grad()
def pack_net(net: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, dict]]:
    """Return the state of `net` with packed weights, and per quantized layer what `unpack_net` needs to know.

    What is lost are the latent weights; the net computes the same without them, but cannot be trained on as before.
    """
    tensors, layers = dict(net.state_dict()), {}
    for name, layer in weights.quantized_layers(net).items():
        integers = weights.integers(layer)
        levels = _alphabet(integers)
        tensors[f"{name}.weight"] = pack(integers, **levels)
        tensors[f"{name}.weight.threshold"] = _threshold(layer)
        layers[name] = {"shape": list(integers.shape), **levels}
    return tensors, layers


def as_bf16(net: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return `tensors`, the state of `net`, with the float weights of convolutions and linear layers as bfloat16.

    These bits are all of them that autocast multiplies with, so that nothing is lost to a net trained and tested there.
    """
    floats = [f"{name}.weight" for name, module in net.named_modules() if type(module) in (nn.Conv2d, nn.Linear)]
    return tensors | {name: tensors[name].bfloat16() for name in floats}


def kilobytes(net: nn.Module) -> float:
    """Return how large `net` is, its weights packed, all else (scales, BatchNorms) as it is; 1 kB is 1000 bytes.

    Raises ValueError when weights are not numbers.
    """
    return sum(tensor.nbytes for tensor in pack_net(net)[0].values()) / 1000


def size_report(net: nn.Module) -> pd.DataFrame:
    """Return a row a layer of `net`, and their sum: bytes of its float twin, of a checkpoint as it is, and packed.

    A checkpoint holds latent weights, as large as the float twin's, and the quantizers' own numbers on top.
    Raises ValueError when weights are not numbers.
    """
    state, packed = net.state_dict(), pack_net(net)[0]
    floats = {name: tensor for name, tensor in state.items() if not OF_A_QUANTIZER.search(name)}
    columns = {"float": floats, "checkpoint": state, "packed": packed}
    report = pd.DataFrame({title: _bytes_a_layer(tensors) for title, tensors in columns.items()})
    report = report.reindex(dict.fromkeys(map(_layer, state))).fillna(0).astype(int)
    return pd.concat([report, report.sum().rename("all").to_frame().T]).rename_axis("layer")


def _bytes_a_layer(tensors: dict[str, torch.Tensor]) -> pd.Series:
    return pd.Series({name: tensor.nbytes for name, tensor in tensors.items()}).groupby(_layer).sum()


def _layer(name: str) -> str:
    """Return the layer's part of a tensor's name: what stands before its quantizer's, else before the last dot."""
    layer, *of_its_quantizer = OF_A_QUANTIZER.split(name.removesuffix(".threshold"), 1)
    return layer if of_its_quantizer else layer.rpartition(".")[0]


@torch.no_grad()
def unpack_net(net: nn.Module, tensors: dict[str, torch.Tensor], layers: dict[str, dict]) -> dict[str, torch.Tensor]:
    """Fix the scales of the quantizers of `net` at the packed ones and return the state to load into it.

    Computed anew from the quantized weights, a mean magnitude could differ from the trained one in its last bit.
    A layer of another shape than the file's is left to whoever compares the state with the net. Raises KeyError or
    ValueError when the file is damaged.
    """
    state = dict(tensors)
    for name, layer in weights.quantized_layers(net).items():
        if name not in layers:
            continue
        threshold = state.pop(f"{name}.weight.threshold").to(layer.weight.device)
        integers = unpack(state[f"{name}.weight"], **layers[name])
        state[f"{name}.weight"] = integers.float()
        if integers.shape == layer.weight.shape:
            injector = layer.weight_quant.quant_injector.let(scaling_impl_type="const", scaling_init=threshold)
            layer.weight_quant = type(layer.weight_quant)(layer, injector)
            state[f"{name}.weight"] *= weights.scale(layer)
    return state


def _alphabet(integers: torch.Tensor) -> dict[str, int]:
    """Return the lowest integer, the step to the next and the number of levels; -1 and 1 alone are two levels."""
    lowest, highest = int(integers.min()), int(integers.max())
    step = 2 if (integers.abs() == 1).all() else 1
    return {"lowest": lowest, "step": step, "levels": max((highest - lowest) // step + 1, 2)}  # a dead layer has one


def _threshold(layer: nn.Module) -> torch.Tensor:
    """Return the magnitude(s) that a quantizer takes its scale from: the scale times its largest integer."""
    return layer.weight_quant.tensor_quant.scaling_impl(layer.weight).detach().float().cpu().clone()
