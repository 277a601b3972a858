"""A net computed with integers alone in NumPy, from the bytes of an image to the class: easy to read, but slow.

Real numbers become integers in three ways. Weights and quantized activations are integers times a scale already. What
is not quantized (the whitened image, the stem, the sums that the skip connections carry) becomes a fixed-point number,
an integer times a power of two. Scales and BatchNorms become a factor, an offset and a shift (`Requantize`) or, before
a sign, a threshold (`Threshold`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from brevitas import nn as qnn
from torch import nn

from ..common.errors import CourseError, check_whole
from ..common.progress import progress
from ..data.batches import STATISTICS, normalize, whitening_filter
from ..nets import weights
from ..nets.architectures import spec_of
from ..nets.convnet import Block, ConvNet
from ..nets.quantizers import bits_of, is_binary
from ..nets.stem import DCTStem
from . import conversion, xnor_reference

FRACTION_BITS = 20  # of fixed-point numbers
FACTOR_BITS = 24  # of the factors of `Requantize`, with their sign
WIDTH = 32  # bits of every sum and every fixed-point number
CHUNK = 50  # images computed at once; keeps the memory for their patches small
REMEDY = "take a convnet or sharpnet whose weights and activations are both quantized, such as XnorNN or Int4NN"
# Steps whose results are levels or sums of levels. All other results are fixed-point numbers.
WHOLE_NUMBERS = ("widen.0", "widen.1", "refine.0", "refine.1", "head.2", "head.3")


@dataclass
class IntegerConv:
    """A convolution of integers; a linear layer is a convolution of one pixel.

    Args:
        weight: Integers (outputs, inputs, height, width).
        stride: Distance between patches in pixels.
        padding: Pixels added at each side.
        pad_value: The integer that stands for a real zero there.
        offset: Added to the sums of each output channel, int64 (outputs,).
        shift: Number of bits by which the sums are shifted right then.
    """

    weight: np.ndarray
    stride: int = 1
    padding: int = 0
    pad_value: int = 0
    offset: np.ndarray | int = 0
    shift: int = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return sums, int32 (n, outputs, h', w'), for integers (n, inputs, h, w)."""
        around = [(0, 0), (0, 0), (self.padding,) * 2, (self.padding,) * 2]
        x = np.pad(x, around, constant_values=self.pad_value)
        windows = np.lib.stride_tricks.sliding_window_view(x, self.weight.shape[2:], (2, 3))
        windows = windows[:, :, :: self.stride, :: self.stride].transpose(0, 2, 3, 1, 4, 5)
        sums = self._products(windows.reshape(-1, self.weight[0].size)) + np.asarray(self.offset, np.int32)
        sums >>= self.shift
        return sums.reshape(*windows.shape[:3], -1).transpose(0, 3, 1, 2)

    def _products(self, patches: np.ndarray) -> np.ndarray:
        """Return the dot products, int32 (n, outputs), of patches (n, values) with the weights."""
        kernels = self.weight.reshape(len(self.weight), -1)
        if (abs(kernels) == 1).all() and (abs(patches) <= 1).all():  # bits; 0, which is padding, is masked
            bits = np.packbits(kernels > 0, axis=1)
            chunks = np.array_split(patches, max(1, len(patches) // 256))
            pairs = ((np.packbits(chunk > 0, axis=1), np.packbits(chunk != 0, axis=1)) for chunk in chunks)
            return np.concatenate([xnor_reference.dot(signs, bits, valid) for signs, valid in pairs]).astype(np.int32)
        return np.einsum("nk,ok->no", patches.astype(np.int32), kernels.astype(np.int32))  # @ is slower for integers

    def bounds(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the smallest and the largest sum of each output channel before the shift, given those of the inputs.

        Args:
            low: The smallest input, int64 (inputs,) or (1,); padding counts as an input.
            high: The largest input, likewise.
        """
        if self.padding:
            low, high = np.minimum(low, self.pad_value), np.maximum(high, self.pad_value)
        positive, negative = (
            part.astype(np.int64).sum((2, 3)) for part in (self.weight.clip(0), self.weight.clip(None, 0))
        )
        smallest = (positive * low + negative * high).sum(1) + self.offset
        return smallest, (positive * high + negative * low).sum(1) + self.offset


@dataclass
class Requantize:
    """Multiply and shift: (factor x + offset) >> shift, clipped to the range from `low` to `high`.

    Args:
        factor: Int64 (channels,) or (1,).
        offset: Int64, likewise; it includes half a unit of the result, so that the shift rounds to nearest.
        shift: Number of bits, at least 0.
        low: The smallest result.
        high: The largest result.
    """

    factor: np.ndarray
    offset: np.ndarray
    shift: int
    low: int = -(2 ** (WIDTH - 1))
    high: int = 2 ** (WIDTH - 1) - 1

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return integers, int32 (n, channels, h, w), for integers of this shape; the product has 64 bits."""
        product = x.astype(np.int64) * _per_channel(self.factor) + _per_channel(self.offset)
        return np.clip(product >> self.shift, self.low, self.high).astype(np.int32)

    def bounds(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the smallest and the largest result of each channel before clipping; see `IntegerConv.bounds`."""
        ends = self.factor * low, self.factor * high
        return tuple((pick(*ends) + self.offset) >> self.shift for pick in (np.minimum, np.maximum))


@dataclass
class Threshold:
    """A sign with everything before it folded in: +1 where direction x is at least `value`, else -1.

    Args:
        direction: +1 or -1 per channel, the sign of the factor that was folded in; 0 if the sign is always the same.
        value: Int64, likewise.
    """

    direction: np.ndarray
    value: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return signs, int32 (n, channels, h, w), for integers of this shape."""
        reached = x.astype(np.int64) * _per_channel(self.direction) >= _per_channel(self.value)
        return np.where(reached, 1, -1).astype(np.int32)


# What the converter expects in a `ConvNet`.
ACTIVATION = (qnn.QuantReLU, qnn.QuantIdentity)
WIDEN = (ACTIVATION, qnn.QuantConv2d, nn.MaxPool2d, nn.BatchNorm2d)
REFINE = (ACTIVATION, qnn.QuantConv2d, nn.BatchNorm2d)
HEAD = (nn.AdaptiveMaxPool2d, nn.Flatten, ACTIVATION, qnn.QuantLinear, nn.BatchNorm1d)
Step = IntegerConv | Requantize | Threshold
Affine = tuple[np.ndarray, np.ndarray]  # gain and shift, one of each per channel: the real number is gain x + shift
Ends = tuple[np.ndarray, np.ndarray]  # the smallest and the largest integer of each channel


@dataclass
class IntegerNet:
    """A `ConvNet` whose steps take integers and return integers.

    Args:
        steps: By the name of the PyTorch module whose output a step computes; "whiten" is the normalization before the
            net, and "blocks.0.widen" is the BatchNorm at the end of a sequence.
        units: What the integer 1 stands for in each step's result: a number, or one per channel.
        pools: Factor by which each block shrinks height and width.
        repeats: How often the stem's responses are repeated.
    """

    steps: dict[str, Step]
    units: dict[str, np.ndarray]
    pools: tuple[int, ...]
    repeats: int

    def trace(
        self, images: np.ndarray, limit: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the integers after each step, from the whitened image to the logits.

        Args:
            images: Uint8 (n, channels, h, w).
            limit: Called with every sum of a quantized layer; returns what is left of it in a narrower register.

        Raises:
            CourseError: If the images are not bytes.
        """
        images, kept, steps = _as_bytes(images), {}, self.steps

        def keep(name: str, value: np.ndarray) -> np.ndarray:
            kept[name] = value
            return value

        def sums(name: str, x: np.ndarray) -> np.ndarray:
            result = steps[name](x)
            return keep(name, limit(result) if limit else result)

        # The image is padded with its own pixels, before anything is subtracted from them.
        x = keep("whiten", steps["whiten"](np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="reflect")))
        responses = steps["stem.0"](x)
        x = keep("stem.0", np.concatenate([responses, -responses] * self.repeats, 1))
        for number, pool in enumerate(self.pools):
            block = f"blocks.{number}"
            levels = keep(f"{block}.widen.0", steps[f"{block}.widen.0"](x))
            pooled = max_pool(sums(f"{block}.widen.1", levels), pool)
            x = keep(f"{block}.widen", steps[f"{block}.widen"](pooled))
            levels = keep(f"{block}.refine.0", steps[f"{block}.refine.0"](pooled))
            refined = keep(f"{block}.refine", steps[f"{block}.refine"](sums(f"{block}.refine.1", levels)))
            x = keep(block, x + refined)  # both have the same unit
        levels = keep("head.2", steps["head.2"](x.max((2, 3), keepdims=True)))
        keep("head", steps["head"](sums("head.3", levels)))
        return kept

    def logits(self, images: np.ndarray, limit: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
        """Return the logits as integers, int32 (n, classes); the arguments are those of `trace`."""
        chunks = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
        bar = progress(chunks, title="integers", shown=len(chunks) > 4)  # shorter work may be part of another loop
        return np.concatenate([self.trace(chunk, limit)["head"][:, :, 0, 0] for chunk in bar])

    def predict(self, images: np.ndarray, limit: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
        """Return the classes, int64 (n,); the arguments are those of `trace`."""
        return self.logits(images, limit).argmax(1)


def _as_bytes(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise CourseError(
            f"The net takes the bytes of images, uint8 (n, channels, h, w), but these are {images.dtype} of the shape "
            f"{images.shape}: pass images that are not normalized."
        )
    return images


def max_pool(x: np.ndarray, size: int) -> np.ndarray:
    """Return the largest integer of each square of `size` x `size` pixels; a remainder at the edge is left out."""
    n, channels, height, width = x.shape
    x = x[:, :, : height // size * size, : width // size * size]
    return x.reshape(n, channels, height // size, size, width // size, size).max((3, 5))


def wrap(sums: np.ndarray, bits: int) -> np.ndarray:
    """Return what a register of `bits` bits (two's complement) holds if carries beyond it are lost."""
    half = 1 << (bits - 1)
    return (sums + half) % (1 << bits) - half


def saturate(sums: np.ndarray, bits: int) -> np.ndarray:
    """Return what a register of `bits` bits holds if it stops at its largest and its smallest number."""
    half = 1 << (bits - 1)
    return np.clip(sums, -half, half - 1)


def convert(net: nn.Module, fraction_bits: int = FRACTION_BITS, factor_bits: int = FACTOR_BITS) -> IntegerNet:
    """Return `net` in integers; its logits on random images are compared with those of the net.

    No sum and no fixed-point number can leave 32 bits, whatever the image: the largest possible magnitude of each is
    computed from the weights.

    Args:
        net: A `ConvNet` with quantized weights and activations, such as XnorNN, Int2NN, Int4NN or Int8NN.
        fraction_bits: Bits after the binary point of fixed-point numbers, 1 to 24.
        factor_bits: Bits of the factors of `Requantize` with their sign, 4 to 31.

    Raises:
        CourseError: If part of the net cannot be computed with integers (the message names it), if a number could need
            more than 32 bits, or if the logits differ from those of the net.
        ValueError: If a number of bits is out of range.
    """
    check_whole("fraction_bits", fraction_bits, 1, 24)
    check_whole("factor_bits", factor_bits, 4, 31)
    net = conversion.on_cpu(net)
    _check_net(net)
    integers = _Converter(net, fraction_bits, factor_bits).convert()
    unit = float(integers.units["head"])

    def run(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(integers.logits(_as_pixels(images).numpy()) * unit)

    conversion.check(_FromNoise(net), run, spec_of(net).image, "integer", may_flip=True)
    return integers


class _FromNoise(nn.Module):
    """A net behind its normalization, for `conversion.check`, whose images are random floats."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(normalize(_as_pixels(images)).to(images.dtype))


def _as_pixels(noise: torch.Tensor) -> torch.Tensor:
    return (60 * noise + 128).clamp(0, 255).to(torch.uint8)


def _check_net(net: nn.Module) -> None:
    """Check that `_Converter` supports each module of `net`, in the order in which it expects them.

    Raises:
        CourseError: If it does not.
    """
    names = conversion.names(net)
    expected = {net: ConvNet}
    if isinstance(net, ConvNet):
        sequences = {net.stem: (DCTStem, nn.BatchNorm2d), net.head: HEAD} | {
            sequence: kinds
            for block in net.blocks
            if isinstance(block, Block)
            for sequence, kinds in ((block.widen, WIDEN), (block.refine, REFINE))
        }
        expected |= dict.fromkeys(net.blocks, Block)
        for sequence, kinds in sequences.items():
            if len(sequence) != len(kinds):
                raise _refusal(names[sequence], f"it has {len(sequence)} modules in place of {len(kinds)}")
            expected |= dict(zip(sequence, kinds, strict=True))
    for module in filter(expected.get, names):
        if reason := _unsupported(module, expected[module]):
            raise _refusal(names[module], reason)


def _unsupported(module: nn.Module, kind: type | tuple[type, ...]) -> str:
    """Return what `_Converter` does not support in `module`, which should be of the class `kind`, or ""."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    known = next((known for known in kinds if isinstance(module, known)), None)
    if known is None:
        return f"expected {' or '.join(known.__name__ for known in kinds)}"
    if reason := conversion.differs_from(module, known):
        return reason
    if isinstance(module, qnn.QuantConv2d | qnn.QuantLinear):
        return _unsupported_layer(module)
    if isinstance(module, qnn.QuantReLU | qnn.QuantIdentity):
        return _unsupported_activation(module)
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) and (module.running_var is None or module.weight is None):
        return "a BatchNorm without running statistics or without a weight is not supported"
    if isinstance(module, nn.AdaptiveMaxPool2d) and module.output_size not in (1, (1, 1)):
        return f"output_size={module.output_size} is not supported"
    if isinstance(module, nn.MaxPool2d):
        settings = module.kernel_size, module.padding, module.dilation, module.ceil_mode
        if settings != (module.stride, 0, 1, False) or not isinstance(module.stride, int):
            return "only pooling of squares that do not overlap is supported"
    return ""


def _unsupported_layer(layer: nn.Module) -> str:
    if layer.bias is not None or layer.return_quant_tensor:
        return "a bias and return_quant_tensor=True are not supported"
    if reason := conversion.unsupported(layer):
        return reason
    if weights.quantized_layers(layer) == {}:
        return "its weights are floats"
    scale, integers = weights.scale(layer), weights.integers(layer)
    if scale.numel() not in (1, len(layer.weight)) or integers.abs().max() > 127:
        return "its weights are not integers of at most 8 bits times one scale per layer or per output channel"
    if not torch.allclose(integers * scale, weights.quantized(layer), rtol=1e-4, atol=0):
        return "its weights are not integers times a scale"
    if isinstance(layer, nn.Conv2d):
        around = {*conversion.pads(layer, 0, 0)[0], *conversion.pads(layer, 0, 0)[1]}
        if (layer.stride, layer.dilation, layer.groups, len(around)) != ((1, 1), (1, 1), 1, 1):
            return "only convolutions with stride 1, without groups or dilation, and with equal padding are supported"
    return ""


def _unsupported_activation(activation: nn.Module) -> str:
    quantizer = activation.act_quant
    if bits_of(quantizer) is None or activation.input_quant.is_quant_enabled or activation.return_quant_tensor:
        return "its activations are floats, or its input_quant or return_quant_tensor is set"
    if bits_of(quantizer) > 8 or quantizer.scale().numel() != 1 or quantizer.zero_point().any():
        return "its activations are not integers of at most 8 bits times one scale"
    if bits_of(quantizer) == 1 and (isinstance(activation, qnn.QuantReLU) or not quantizer.is_signed):
        return "activations of one bit have to be signs"
    return ""


def _refusal(name: str, reason: str, remedy: str = REMEDY) -> CourseError:
    return CourseError(f"{name} cannot be computed with integers: {reason}. Instead, {remedy}.")


def compare(net: nn.Module, integers: IntegerNet, images: torch.Tensor, **options: Callable) -> pd.DataFrame:
    """Compare the integers after each step with PyTorch's activations on the same images.

    Levels and sums of levels are whole numbers in PyTorch, too, once they are divided by their unit: they differ where
    the two integers do. Fixed-point numbers differ where they are more than a hundredth of their standard deviation
    apart.

    Args:
        net: The net that was converted.
        integers: The converted net, perhaps with a deliberate mistake.
        images: Uint8 (n, channels, h, w).
        options: Passed on to `IntegerNet.trace`.

    Returns:
        One row per step: the number of values, how many of them differ, and their share.
    """
    names, rows = list(integers.units), np.zeros((len(integers.units), 2), np.int64)
    for part in images.cpu().split(CHUNK):
        expected, found = _activations(net, part, names), integers.trace(part.numpy(), **options)
        for row, name in zip(rows, names, strict=True):
            real, unit = expected[name].reshape(found[name].shape), _per_channel(integers.units[name])
            if name.endswith(WHOLE_NUMBERS):
                differ = found[name] != np.rint(real / unit)
            else:
                differ = abs(found[name] * unit - real) > 0.01 * real.std()
            row += differ.size, differ.sum()
    table = pd.DataFrame(rows, pd.Index(names, name="layer"), ["values", "differ"])
    return table.assign(share=table["differ"] / table["values"])


@torch.no_grad()
def _activations(net: nn.Module, images: torch.Tensor, names: list[str]) -> dict[str, np.ndarray]:
    """Return what the modules `names` of `net` return for `images`, and the normalized images as "whiten"."""
    net, kept = conversion.on_cpu(net), {}
    modules = dict(net.named_modules())

    def keep(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            kept[name] = output.double().numpy()

        return hook

    for name in names:
        if name != "whiten":
            modules[name].register_forward_hook(keep(name))
    normalized = normalize(images)
    net(normalized)
    return {"whiten": normalized.double().numpy()} | kept


class _Converter:
    """Makes the steps of an `IntegerNet` one after the other, and follows the largest magnitude that can occur."""

    def __init__(self, net: ConvNet, fraction_bits: int, factor_bits: int) -> None:
        self.net, self.fixed, self.factor_bits = net, 2.0**-fraction_bits, factor_bits
        self.steps, self.units = {}, {}

    def convert(self) -> IntegerNet:
        """Return the net in integers."""
        stem, norm = self.net.stem
        ends = self._whiten(spec_of(self.net).image[0])
        low, high = self._add("stem.0", IntegerConv(_whole(stem.filters), stem.stride, stem.padding), self.fixed, ends)
        ends = np.tile([*low, *-high], stem.repeats), np.tile([*high, *-low], stem.repeats)
        gain, shift = _norm(norm)
        affine = gain * self.fixed, shift
        for number, block in enumerate(self.net.blocks):
            name, (act, conv, _, norm) = f"blocks.{number}", block.widen
            affine, pooled = self._layer(f"{name}.widen", 0, (act, conv, norm), affine, ends)
            widened = self._fixed_point(f"{name}.widen", affine, pooled)
            affine, sums = self._layer(f"{name}.refine", 0, tuple(block.refine), affine, pooled)
            refined = self._fixed_point(f"{name}.refine", affine, sums)
            self.units[name] = np.array(self.fixed)
            ends = self._within_width(name, widened[0] + refined[0], widened[1] + refined[1])
            affine = np.array([self.fixed]), np.zeros(1)
        affine, sums = self._layer("head", 2, tuple(self.net.head)[2:], affine, ends)
        self._fixed_point("head", affine, sums)
        pools = tuple(block.widen[2].kernel_size for block in self.net.blocks)
        return IntegerNet(self.steps, self.units, pools, stem.repeats)

    def _whiten(self, channels: int) -> Ends:
        """Add the step that replaces `normalize`: one filter for the bytes, in which all of it is folded."""
        mean, std = (np.array(values) * 255 for values in STATISTICS[channels])
        kernel = whitening_filter(channels=channels).double().numpy() / std.reshape(1, -1, 1, 1)
        offset = -(kernel.sum((2, 3)) @ mean)
        low, high = (part.sum((1, 2, 3)) * 255 + offset for part in (kernel.clip(None, 0), kernel.clip(0)))
        # The sums get all bits that fit. They are shifted to the unit of the fixed-point numbers at the end.
        shift = max(WIDTH - 1 - _bits(float(max(-low.min(), high.max())) / self.fixed), 0)
        unit = self.fixed / 2**shift
        step = IntegerConv(_round_together(kernel / unit), offset=_round(offset / unit) + 2**shift // 2, shift=shift)
        return self._add("whiten", step, self.fixed, (np.array([0]), np.array([255])))

    def _layer(
        self, name: str, first: int, modules: tuple[nn.Module, ...], affine: Affine, ends: Ends
    ) -> tuple[Affine, Ends]:
        """Add an activation and the layer behind it.

        Args:
            name: The name of the sequence that they are in.
            first: The place of the activation in the sequence.
            modules: The activation, the layer and the BatchNorm behind it.
            affine: The activation's input in reals is affine[0] x integer + affine[1].
            ends: The range of these integers.

        Returns:
            The same two of the sums, with the BatchNorm in `affine`.
        """
        act, layer, norm = modules
        scale, levels = act.act_quant.scale().item(), _levels(act)
        gain, shift = affine
        if is_binary(act.act_quant):
            step = _threshold(gain, shift)
        else:
            step = self._requantize(f"{name}.{first}", (gain / scale, shift / scale), ends, levels)
        self.steps[f"{name}.{first}"], self.units[f"{name}.{first}"] = step, np.array(scale)
        kernel = _whole(weights.integers(layer))
        is_linear = isinstance(layer, nn.Linear)
        padding = 0 if is_linear else conversion.pads(layer, 0, 0)[0][0]
        step = IntegerConv(kernel[:, :, None, None] if is_linear else kernel, padding=padding)
        unit = scale * weights.scale(layer).double().numpy().reshape(-1)
        sums = self._add(f"{name}.{first + 1}", step, unit, tuple(np.array([level]) for level in levels))
        gain, shift = _norm(norm)
        return (gain * unit, shift), sums

    def _fixed_point(self, name: str, affine: Affine, ends: Ends) -> Ends:
        """Add the step that returns gain x + shift as a fixed-point number."""
        affine = affine[0] / self.fixed, affine[1] / self.fixed
        return self._add(name, self._requantize(name, affine, ends), self.fixed, ends)

    def _requantize(self, name: str, affine: Affine, ends: Ends, limits: tuple[int, ...] = ()) -> Requantize:
        """Return the step that computes gain x + shift, rounded, for integers x within `ends`."""
        gain, shift = affine
        reach = float(max((abs(gain * end) + abs(shift)).max() for end in ends))
        bits = min(self.factor_bits - 1 - _bits(float(abs(gain).max())), 62 - _bits(reach))
        if bits < 1:
            raise _refusal(name, f"its factor {abs(gain).max():.3g} is too large", "pass fewer fraction_bits")
        return Requantize(_round(gain * 2.0**bits), _round(shift * 2.0**bits) + 2 ** (bits - 1), bits, *limits)

    def _add(self, name: str, step: IntegerConv | Requantize, unit: np.ndarray | float, ends: Ends) -> Ends:
        """Keep a step; return the range of its results for inputs within `ends`."""
        self.steps[name], self.units[name] = step, np.asarray(unit)
        low, high = self._within_width(name, *step.bounds(*ends))
        return (low >> step.shift, high >> step.shift) if isinstance(step, IntegerConv) else (low, high)

    def _within_width(self, name: str, low: np.ndarray, high: np.ndarray) -> Ends:
        largest = int(max(-low.min() - 1, high.max()))
        if largest >= 2 ** (WIDTH - 1):
            raise _refusal(name, f"its numbers can need {largest.bit_length() + 1} bits", "pass fewer fraction_bits")
        return low, high


def _norm(norm: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Return a BatchNorm in eval mode as gain x + shift, one of each per channel."""
    gain = (norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()).detach().numpy()
    return gain, norm.bias.detach().double().numpy() - norm.running_mean.double().numpy() * gain


def _threshold(gain: np.ndarray, shift: np.ndarray) -> Threshold:
    """Return the sign of gain x + shift: x reaches -shift / gain from below or, if the gain is negative, from above."""
    gain, shift = np.broadcast_arrays(gain, shift)
    direction = np.sign(gain).astype(np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(gain == 0, np.where(shift >= 0, 0, 1), np.ceil(-shift / abs(gain)))
    return Threshold(direction, np.clip(value, -(2.0**40), 2.0**40).astype(np.int64))


def _levels(activation: nn.Module) -> tuple[int, int]:
    """Return the smallest and the largest level of a quantized activation, as integers."""
    quantizer = activation.act_quant
    bits = bits_of(quantizer)
    if bits == 1:
        return -1, 1
    if not quantizer.is_signed:
        return 0, 2**bits - 1
    low = -(2 ** (bits - 1)) + bool(quantizer.is_narrow_range)
    return 0 if isinstance(activation, qnn.QuantReLU) else low, 2 ** (bits - 1) - 1


def _bits(number: float) -> int:
    """Return how many bits the whole part of a number needs; -1 for 0.3, because 0.3 is less than 2 ** -1."""
    return int(np.frexp(number)[1])


def _round_together(kernels: np.ndarray) -> np.ndarray:
    """Return kernels rounded so that the sum of each is off by at most a half.

    Neighbouring bytes of an image are similar, so rounding errors that add up would add up in the result, too.
    """
    totals = np.rint(kernels.reshape(len(kernels), -1).cumsum(1))
    return np.diff(totals, axis=1, prepend=0).reshape(kernels.shape).astype(np.int64)


def _round(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.int64)


def _whole(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy().astype(np.int32)


def _per_channel(values: np.ndarray) -> np.ndarray:
    return np.reshape(values, (1, -1, 1, 1))
