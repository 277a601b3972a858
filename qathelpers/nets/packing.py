"""Pack quantized weights: a byte holds 8 binary, 5 ternary, 4 two-bit or 2 four-bit weights."""

import re

import pandas as pd
import torch
from torch import nn

from ..common.errors import CourseError, check_type, check_whole, raise_if_of_the_machine
from . import quantizers, weights

MOST_LEVELS = 256  # of a number that a byte holds
QUANTIZER = re.compile(r"\.\w+_quant\.")  # in the name of a tensor that belongs to a quantizer


def per_byte(levels: int) -> int:
    """Return how many numbers with `levels` possible values (2 to 256) fit into a byte: 8 for 2, 5 for 3, 2 for 15.

    Raises:
        ValueError: If `levels` is not a whole number from 2 to 256.
    """
    if not isinstance(levels, int) or not 2 <= levels <= 256:
        raise ValueError(f"a byte holds numbers with 2 to 256 possible values, not {levels}")
    count = 1
    while levels ** (count + 1) <= 256:
        count += 1
    return count


def pack(integers: torch.Tensor, lowest: int, step: int, levels: int) -> torch.Tensor:
    """Return `integers` as a uint8 tensor, with several integers per byte.

    A byte holds one number in base `levels`, in which the first integer is the lowest digit. With two levels, the
    digits are bits. With three levels, 5 digits use 3**5 = 243 of the 256 values of a byte.

    Args:
        integers: Integers of any shape.
        lowest: The lowest possible integer.
        step: Distance from one possible integer to the next.
        levels: Number of possible integers.

    Raises:
        ValueError: If an integer is not one of the possible integers.
    """
    check_type("integers", integers, torch.Tensor, "a tensor, such as weights.integers(layer)")
    check_whole("step", step, 1)
    offsets = integers.flatten().long() - lowest
    digits = offsets // step
    if (
        (integers.flatten() != offsets + lowest).any()
        or (digits * step != offsets).any()
        or (digits < 0).any()
        or (digits >= levels).any()
    ):
        raise ValueError(
            f"some integers are not among the {levels} possible ones from {lowest} to {lowest + step * (levels - 1)}"
        )
    count = per_byte(levels)
    padded = nn.functional.pad(digits, (0, -len(digits) % count)).view(-1, count)
    return (padded * levels ** torch.arange(count)).sum(1).to(torch.uint8)


def unpack(packed: torch.Tensor, shape: list[int], lowest: int, step: int, levels: int) -> torch.Tensor:
    """Return the integers (int64, in `shape`) that `pack` packed.

    Raises:
        ValueError: If `packed` is not a tensor of bytes, or if the number of bytes is wrong.
    """
    if packed.dtype != torch.uint8:
        raise ValueError(f"packed integers are bytes (torch.uint8), not {packed.dtype}")
    count, size = per_byte(levels), torch.Size(shape).numel()
    if len(packed) != -(-size // count):
        raise ValueError(f"{len(packed)} bytes do not hold {size} integers of {levels} levels")
    digits = packed.long().unsqueeze(1) // levels ** torch.arange(count) % levels
    return digits.flatten()[:size].view(shape) * step + lowest


@torch.no_grad()
def pack_net(net: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, dict]]:
    """Return the state_dict of `net` with packed weights, and what `unpack_net` needs to know of each quantized layer.

    The latent weights are dropped: the net computes the same without them, but its training cannot be resumed.

    Raises:
        ValueError: If weights are NaN or infinite.
    """
    weights.check_net(net)
    tensors, layers = dict(net.state_dict()), {}
    for name, layer in weights.quantized_layers(net).items():
        integers = weights.integers(layer)
        codebook = _codebook(integers)
        for other in _names(net, layer):  # of a layer that is used several times
            tensors.pop(_key(other, "weight"))
            for replaced in _replaced_by_threshold(layer):
                tensors.pop(_key(other, f"weight_quant.{replaced}"), None)
        tensors[_key(name, "weight")] = pack(integers, **codebook)
        tensors[_key(name, "weight.threshold")] = _threshold(layer)
        layers[name] = {"shape": list(integers.shape), **codebook}
    return tensors, layers


def as_bf16(net: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return `tensors`, the state_dict of `net`, with the float weights of convolutions and linear layers in bfloat16.

    Training under bf16 autocast rounds these weights to bfloat16 before it multiplies anyway.
    """
    floats = [f"{name}.weight" for name, module in net.named_modules() if type(module) in (nn.Conv2d, nn.Linear)]
    return tensors | {name: tensors[name].bfloat16() for name in floats}


def levels(layer: nn.Module) -> int | None:
    """Return the number of levels of a quantized layer's weights, from the lowest integer in use to the highest.

    Returns:
        At least 2; None if the weights cannot be packed: they have more than 256 levels or a floating-point format, or
        some are NaN or infinite.
    """
    weights.check_layer(layer)
    if quantizers.bits_of(layer.weight_quant) is None:
        return None
    try:
        count = _codebook(weights.integers(layer))["levels"]
    except ValueError:
        return None
    return count if count <= MOST_LEVELS else None


@torch.no_grad()
def weight_bytes(layer: nn.Module) -> int:
    """Return the bytes of a quantized layer's packed weights and their scales.

    Weights that cannot be packed (see `levels`) count as the bits of their quantizer.
    """
    return levels_and_bytes(layer)[1]


@torch.no_grad()
def levels_and_bytes(layer: nn.Module) -> tuple[int | None, int]:
    """Return what `levels` and `weight_bytes` return for a quantized layer, in the time of one of them."""
    weights.check_layer(layer)
    count, number = layer.weight.numel(), levels(layer)
    if number is not None:
        return number, -(-count // per_byte(number)) + _threshold(layer).nbytes
    return None, -(-count * quantizers.bits_per_value(layer.weight_quant) // 8) + weights.scale(layer).nbytes


def kilobytes(net: nn.Module) -> float:
    """Return the size of `net` in kB (1000 bytes), with packed weights; scales and BatchNorms stay floats.

    Weights that cannot be packed (see `levels`) count as the bits of their quantizer. A layer that is used several
    times counts once.
    """
    weights.check_net(net)
    return sum(_packed_bytes(net).values()) / 1000


def size_report(net: nn.Module) -> pd.DataFrame:
    """Return the bytes of each layer and their sum: in a float net, in an ordinary checkpoint, and packed.

    A checkpoint holds the latent weights, which are as large as those of a float net, and the quantizers' own tensors.
    The packed size is that of `kilobytes`.
    """
    weights.check_net(net)
    checkpoint = {name: tensor.nbytes for name, tensor in net.state_dict().items()}
    floats = {name: size for name, size in checkpoint.items() if not QUANTIZER.search(name)}
    packed = _packed_bytes(net)
    columns = {"float": floats, "checkpoint": checkpoint, "packed": packed}
    report = pd.DataFrame({title: pd.Series(sizes).groupby(_layer).sum() for title, sizes in columns.items()})
    report = report.reindex(dict.fromkeys(map(_layer, [*checkpoint, *packed]))).fillna(0).astype(int)
    return pd.concat([report, report.sum().rename("all").to_frame().T]).rename_axis("layer")


def _packed_bytes(net: nn.Module) -> dict[str, int]:
    """Return the bytes of each tensor of the packed net; 0 for further names of the same tensor.

    A net has the same size before and after its training, so scales that are learned from statistics on count already.
    """
    sizes, seen, parameters = {}, set(), dict(net.named_parameters(remove_duplicate=False))
    for name, tensor in (net.state_dict(keep_vars=True) | weights.late_parameters(net)).items():
        owner = id(parameters.get(name, tensor))  # the state_dict can hold a mean instead of the parameter
        sizes[name] = 0 if owner in seen else tensor.nbytes
        seen.add(owner)
    for name, layer in weights.quantized_layers(net).items():
        sizes[_key(name, "weight")] = weight_bytes(layer)
        for other in _names(net, layer):
            sizes |= {_key(other, f"weight_quant.{replaced}"): 0 for replaced in _replaced_by_threshold(layer)}
    return sizes


def _layer(name: str) -> str:
    """Return the layer that a tensor belongs to, given the tensor's name."""
    layer, *quantizer = QUANTIZER.split(name.removesuffix(".threshold"), 1)
    return layer if quantizer else layer.rpartition(".")[0]


@torch.no_grad()
def unpack_net(net: nn.Module, tensors: dict[str, torch.Tensor], layers: dict[str, dict]) -> dict[str, torch.Tensor]:
    """Fix the scales of the quantizers of `net` at the packed values; return the state_dict to load into the net.

    The scales have to be stored: a mean magnitude recomputed from the quantized weights could differ in its last bit.
    Layers whose shape differs from the packed shape are left unchanged; the caller compares the state_dict with the
    net.

    Raises:
        KeyError: If a packed tensor is missing.
        ValueError: If a packed tensor is damaged.
    """
    state = dict(tensors)
    for name, layer in weights.quantized_layers(net).items():
        if name not in layers:
            continue
        names, key = _names(net, layer), _key(name, "weight")
        threshold = state.pop(_key(name, "weight.threshold")).to(layer.weight.device)
        integers = unpack(state[key], **layers[name])
        state[key] = integers.float()
        if integers.shape == layer.weight.shape:
            layer.weight_quant = _with_constant_scale(layer, threshold)
            state[key] *= weights.scale(layer)
            own = layer.weight_quant.state_dict()
            for prefix in (_key(other, "weight_quant.") for other in names):
                for old in [old for old in state if old.startswith(prefix) and old.removeprefix(prefix) not in own]:
                    del state[old]  # of a learned scale, which the threshold has replaced
        state |= {_key(other, "weight"): state[key] for other in names}
    return state


@torch.no_grad()
def check_packing(net: nn.Module) -> None:
    """Check that the quantized weights of `net` are exactly the same after packing and unpacking.

    Raises:
        CourseError: If those of a layer are not; the message names it. Its quantizer cannot be packed then.
    """
    for name, layer in weights.quantized_layers(net).items():
        quantizer, latent, expected = layer.weight_quant, layer.weight.clone(), weights.quantized(layer)
        try:
            integers = weights.integers(layer)
            pack(integers, **_codebook(integers))
            layer.weight_quant = _with_constant_scale(layer, _threshold(layer).to(latent.device))
            layer.weight.copy_(integers.to(latent.device) * weights.scale(layer).to(latent.device))
            problem = "" if torch.equal(weights.quantized(layer), expected) else "other weights come out"
        except Exception as error:  # Brevitas raises almost anything for a quantizer without a constant scale
            raise_if_of_the_machine(error)
            problem = str(error)
        finally:
            layer.weight_quant = quantizer
            layer.weight.copy_(latent)
        if problem:
            raise CourseError(f"The weights of {name} cannot be packed ({problem}): save the net with packed=False.")


def _with_constant_scale(layer: nn.Module, threshold: torch.Tensor) -> nn.Module:
    """Return a weight quantizer like that of `layer`, but with a scale that is fixed by `threshold`."""
    injector = layer.weight_quant.quant_injector.let(scaling_impl_type="const", scaling_init=threshold)
    quantizer = type(layer.weight_quant)(layer, injector)
    own, old = quantizer.state_dict(), layer.weight_quant.state_dict()
    quantizer.load_state_dict({key: old[key] for key in own if key in old}, strict=False)
    return quantizer


def _replaced_by_threshold(layer: nn.Module) -> list[str]:
    """Return the names of the tensors of a layer's weight quantizer that are not needed once the threshold is stored.

    They are those of a learned scale, whose value is that of the threshold.
    """
    # A quantizer that computes its scale from the weights also holds the weights themselves.
    named = layer.weight_quant.named_parameters()
    others = {name for name, parameter in named if parameter is not layer.weight}
    shared = dict(layer.weight_quant.named_parameters()).keys() - others
    names = sorted((others | layer.weight_quant.state_dict().keys()) - shared)
    if not names:
        return []
    try:
        kept = _with_constant_scale(layer, _threshold(layer)).state_dict()
    except Exception as error:  # Brevitas raises almost anything for a quantizer without a constant scale
        raise_if_of_the_machine(error)
        return []
    return [name for name in names if name not in kept]


def _codebook(integers: torch.Tensor) -> dict[str, int]:
    """Return the lowest integer, the step and the number of levels; if only -1 and 1 occur, there are two levels."""
    lowest, highest = int(integers.min()), int(integers.max())
    step = 2 if (integers.abs() == 1).all() else 1
    return {
        "lowest": lowest,
        "step": step,
        "levels": max((highest - lowest) // step + 1, 2),
    }  # at least 2, although a dead layer has only one level


def _key(layer: str, tensor: str) -> str:
    """Return the name of a layer's tensor in the state_dict; a net that is one layer has the name ""."""
    return f"{layer}.{tensor}" if layer else tensor


def _names(net: nn.Module, layer: nn.Module) -> list[str]:
    """Return all names of a layer in `net`: it has several if the net uses it several times."""
    return [name for name, module in net.named_modules(remove_duplicate=False) if module is layer]


def _threshold(layer: nn.Module) -> torch.Tensor:
    """Return the magnitudes, one or one per channel, from which the scale is derived: scale times largest integer."""
    return layer.weight_quant.tensor_quant.scaling_impl(layer.weight).detach().float().cpu().clone()
