"""What a net costs: bytes for its weights, multiply-accumulate operations (MACs) and bit operations (BOPs)."""

import warnings as python_warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import torch
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from torch import nn
from torch.overrides import TorchFunctionMode

from ..common.errors import CourseError, check_shape, raise_if_of_the_machine
from ..nets import packing
from ..nets.architectures import spec_of
from ..nets.quantizers import FLOAT_BITS, bits_per_value
from ..nets.stem import DCTStem
from ..nets.weights import check_net

IMAGE_BITS = 8  # per colour channel of a pixel
FILTER_BITS = 4  # the fixed filters of the stem are integers from -4 to 4
COLUMNS = ["weights", "MACs", "W", "A", "bytes", "BOPs"]
COUNTED = (nn.modules.conv._ConvNd, nn.Linear, DCTStem)
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)  # their weights scale values, without sums

# Functions whose results need as many bits as their arguments: they select, move or copy values, or change their sign.
# fmt: off
KEEP_BITS = {
    "flatten", "unflatten", "reshape", "view", "permute", "transpose", "movedim", "squeeze", "unsqueeze", "expand",
    "contiguous", "clone", "detach", "chunk", "split", "tensor_split", "unbind", "cat", "stack", "__getitem__",
    "__get__", "rename", "rename_", "neg", "__neg__", "pad", "dropout", "to", "cpu", "float", "repeat", "max_pool1d",
    "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "amax",
    "channel_shuffle", "pixel_shuffle", "pixel_unshuffle",
}
# fmt: on
# With a number as the other argument, these functions only change the scale of a quantized tensor, or its offset.
# fmt: off
SCALE = {
    "add", "sub", "mul", "div", "__add__", "__sub__", "__mul__", "__truediv__", "__radd__", "__rsub__", "__rmul__",
    "true_divide", "rsub",
}
# fmt: on


@torch.no_grad()
def layers(net: nn.Module, image: tuple[int, ...] | None = None) -> pd.DataFrame:
    """Count what each layer of `net` costs for one image.

    The inputs of a layer have the bits of the quantizer from which they come: the layer's own `input_quant`, or an
    activation. Pooling, reshaping and scaling keep these bits; everything else (a BatchNorm, a float activation, a sum)
    returns 32-bit floats.

    Args:
        net: Any net of convolutions (also transposed or grouped ones) and linear layers.
        image: The shape of one image (channels, height, width); by default what the net was built for.

    Returns:
        One row per convolution, linear layer and fixed stem, in the order of their first use, with these columns:
        `weights`, the number of weights;
        `MACs`, the multiply-accumulate operations per image, over all uses of the layer;
        `W` and `A`, the bits per weight (1.58 for three levels) and per input value (the most, if uses differ);
        `bytes`, the size of the packed weights with their scales; weights of more than 256 levels and of
        floating-point formats count as the bits of their quantizer;
        `BOPs`, the bit operations per image: MACs x W x A, the cost of the multiplications in dedicated hardware.
        The net's other modules with weight matrices, and layers whose weights are used without calling the layer, come
        last, with NaN for what was not counted; a warning names them.

    Raises:
        CourseError: If the net does not accept images of this shape.

    Reference:
        C. Baskin et al., UNIQ (arXiv 1804.10969), for the BOPs.
    """
    return count(net, image, stacklevel=3).layers


def feature_map_kilobytes(net: nn.Module, image: tuple[int, ...] | None = None) -> float:
    """Return the working memory in kB (1000 bytes) for one image: the largest sum of a layer's input and output.

    While a layer is computed, its input and its output are in memory at the same time. Inputs have the bits that
    `layers` calls `A`; outputs are stored as the next layer reads them, and those of the last layer as floats. This
    assumes that BatchNorm and activation are applied to each output before it is stored. The fixed stem is not
    counted, because its output is the input of the next layer. Values that wait for a skip connection are not counted
    either.

    Args:
        net: Any net of convolutions and linear layers.
        image: The shape of one image (channels, height, width); by default what the net was built for.

    Raises:
        CourseError: If the net does not accept images of this shape.
    """
    return working_memory(count(net, image).calls)


@dataclass(frozen=True)
class Call:
    """One call of a layer: the number of its input values and of its output values, and the bits per input value."""

    inputs: int
    outputs: int
    bits: int


@dataclass(frozen=True)
class Count:
    """What a net costs for one image: the table of `layers`, and the calls of convolutions and linear layers."""

    layers: pd.DataFrame
    calls: tuple[Call, ...]


def working_memory(calls: Sequence[Call]) -> float:
    """Return what `feature_map_kilobytes` returns for a net that makes these calls, in this order."""
    read = [*(call.bits for call in calls[1:]), FLOAT_BITS]
    pairs = [call.inputs * call.bits + call.outputs * later for call, later in zip(calls, read, strict=False)]
    return max(pairs, default=0) / 8 / 1000


@torch.no_grad()
def count(net: nn.Module, image: tuple[int, ...] | None = None, *, stacklevel: int = 2) -> Count:
    """Return what `layers` returns, and the calls for `working_memory`, from one forward pass.

    Args:
        net: Any net, or a part of one.
        image: The shape of one input (channels, height, width); by default what the net was built for.
        stacklevel: Whose line a warning names, as in `warnings.warn`.

    Raises:
        CourseError: If the net does not accept inputs of this shape.
    """
    calls: list[Call] = []
    rows = _count(net, image, calls)
    names = {module: name for name, module in net.named_modules()}
    table = {names[module] or type(module).__name__: row for module, row in rows.items()}
    table |= (missing := _not_counted(net, rows))
    if missing:
        python_warnings.warn(
            f"MACs are not counted for {', '.join(missing)} of {spec_of(net).name}.", stacklevel=stacklevel
        )
    index = pd.Index(list(table), name="layer")
    return Count(pd.DataFrame(list(table.values()), columns=COLUMNS, index=index), tuple(calls))


def _count(net: nn.Module, image: tuple[int, ...] | None, calls: list[Call]) -> dict[nn.Module, dict]:
    """Return the row of each layer that the net calls for one image, in the order of the first calls.

    The calls are appended to `calls`.
    """
    check_net(net)
    image = spec_of(net).image if image is None else image
    check_shape("image", image)
    rows: dict[nn.Module, dict] = {}
    names = {module: name for name, module in net.named_modules()}

    def before_layer(module: nn.Module, args: tuple, kwargs: dict) -> None:
        bits = _enabled_bits(module, "input_quant") or _bits(_only(args, kwargs))
        row = rows.setdefault(module, _row(module) | {"MACs": 0, "A": 0, "BOPs": 0})
        row["A"] = max(row["A"], bits)
        row["now"] = bits

    def after_layer(module: nn.Module, args: tuple, kwargs: dict, output: torch.Tensor) -> None:
        inputs = _value(_only(args, kwargs))
        row, macs = rows[module], _macs(module, inputs, _value(output))
        row["MACs"] += macs
        row["BOPs"] += round(macs * row["W"] * row["now"])
        if not isinstance(module, DCTStem):
            calls.append(Call(inputs.numel(), _value(output).numel(), row["now"]))

    def after_quantizer(module: nn.Module, _: tuple, output: torch.Tensor) -> None:
        bits = _enabled_bits(module, "act_quant") or _enabled_bits(module, "output_quant")
        if bits is not None:
            _value(output).bits = bits

    counted = [m for m in names if isinstance(m, COUNTED)]
    hooks = [m.register_forward_pre_hook(before_layer, with_kwargs=True) for m in counted]
    hooks += [m.register_forward_hook(after_layer, with_kwargs=True) for m in counted]
    quantizing = [m for m in names if hasattr(m, "act_quant") or hasattr(m, "output_quant")]
    hooks += [m.register_forward_hook(after_quantizer) for m in quantizing]
    parameter = next(net.parameters(), torch.zeros(1))
    images = torch.zeros(1, *image, device=parameter.device, dtype=parameter.dtype)
    images.bits = IMAGE_BITS
    try:
        with _evaluating(net), _TrackBits():
            net(images)
    except CourseError:
        raise
    except Exception as error:
        raise_if_of_the_machine(error)
        reason = str(error).strip().partition("\n")[0]
        raise CourseError(
            f"The net does not accept images of the shape {tuple(image)} ({reason}): pass their shape as `image`."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def summary(nets: list[nn.Module], image: tuple[int, ...] | None = None) -> pd.DataFrame:
    """Compare the costs of several nets: one row per net, with its packed size in kB, and millions of MACs and BOPs.

    MACs and BOPs are per image; 1 kB is 1000 bytes. If `layers` cannot count a part of a net, they are NaN.

    Args:
        nets: The nets.
        image: The shape of one image (channels, height, width); by default what each net was built for.

    Raises:
        CourseError: If a net does not accept images of this shape.
    """
    rows = []
    for net in nets:
        table = layers(net, image)
        row = {"net": spec_of(net).name, "kB": round(packing.kilobytes(net), 1)}
        for unit in ("MACs", "BOPs"):
            row[f"million {unit}"] = round(table[unit].sum(skipna=False) / 1e6, 1)
        rows.append(row)
    return pd.DataFrame(rows, columns=["net", "kB", "million MACs", "million BOPs"]).set_index("net")


class _TrackBits(TorchFunctionMode):
    """Hands the attribute `bits` of tensors on to the results of the functions that keep it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "").removesuffix("_with_indices")
        name = name if name.startswith("__") else name.removeprefix("_")
        parts = args[0] if args and isinstance(args[0], list | tuple) else args
        tensors = [part for part in parts if isinstance(part, torch.Tensor)]
        if tensors and (name in KEEP_BITS or (name in SCALE and len(tensors) == 1)):
            bits = max(_bits(tensor) for tensor in tensors)
            for tensor in result if isinstance(result, list | tuple) else [result]:
                if isinstance(tensor, torch.Tensor):
                    tensor.bits = bits
        elif name == "__setitem__":
            args[0].bits = max(_bits(args[0]), _bits(args[2]))
        elif any(result is tensor for tensor in tensors):  # changed in place
            result.bits = FLOAT_BITS
        return result


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Put all modules of `net` into eval mode and each one back into its own mode afterwards."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _only(args: tuple, kwargs: dict) -> torch.Tensor:
    """Return the input of a layer, which may be called with or without its name."""
    return args[0] if args else next(iter(kwargs.values()))


def _value(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values of a tensor or of Brevitas' QuantTensor."""
    return getattr(tensor, "value", tensor)


def _bits(tensor: torch.Tensor) -> int:
    """Return the bits per value of a tensor in the net; float if nothing else is known."""
    if getattr(tensor, "bit_width", None) is not None:  # Brevitas' QuantTensor of integers
        return int(tensor.bit_width.max())
    return getattr(_value(tensor), "bits", FLOAT_BITS)


def _enabled_bits(module: nn.Module, name: str) -> int | None:
    """Return the bits of the quantizer called `name`; None if the module has none or if it is switched off."""
    quantizer = getattr(module, name, None)
    return bits_per_value(quantizer) if isinstance(quantizer, QuantProxyFromInjector) else None


def _row(module: nn.Module) -> dict:
    """Return the number of weights, the bits per weight and the bytes of a layer."""
    if isinstance(module, DCTStem):
        return {"weights": 0, "W": FILTER_BITS, "bytes": 0}
    bits = _enabled_bits(module, "weight_quant")
    row = {"weights": module.weight.numel(), "W": bits or FLOAT_BITS}
    if bits is None:
        return row | {"bytes": module.weight.nbytes}
    levels, size = packing.levels_and_bytes(module)
    if levels is not None:
        row["W"] = {2: 1, 3: 1.58}.get(levels, float(bits))
    return row | {"bytes": size}


def _macs(module: nn.Module, inputs: torch.Tensor, output: torch.Tensor) -> int:
    """Return the MACs of one call of a layer on one image."""
    if isinstance(module, DCTStem):
        return module.filters.numel() * output.shape[2:].numel()
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if module.transposed:  # each input is multiplied by a kernel for each output channel of its group
        return inputs.numel() * module.weight[0].numel()
    return output.numel() * module.weight[0].numel()


def _not_counted(net: nn.Module, counted: dict[nn.Module, dict]) -> dict[str, dict]:
    """Return a row for each module of `net` that was not counted although it has weights of two or more dimensions."""
    rows, inside = {}, set()
    for name, module in net.named_modules():
        if module in inside or isinstance(module, NORMS):
            continue
        if module in counted or isinstance(module, QuantProxyFromInjector):
            inside |= set(module.modules())
            continue
        if isinstance(module, COUNTED):
            rows[name] = _row(module)
            inside |= set(module.modules())
            continue
        matrices = [weight for weight in module.parameters(recurse=False) if weight.ndim > 1]
        if matrices:
            count, size = (sum(values) for values in zip(*((w.numel(), w.nbytes) for w in matrices), strict=True))
            rows[name or type(module).__name__] = {"weights": count, "W": FLOAT_BITS, "bytes": size}
    return rows
