"""Turn the layers of a ConvNet or LeNet into the arrays and calls of a C program (see `c`)."""

from dataclasses import dataclass, field

import numpy as np
import torch
from brevitas import nn as qnn
from torch import nn

from ..common.errors import CourseError
from ..nets import weights
from ..nets.convnet import Block, ConvNet
from ..nets.lenet import LeNet
from ..nets.quantizers import bits_of, is_binary
from ..nets.stem import DCTStem
from . import conversion

REMEDY = "export a net with binary or ternary weights, and floats or signs as activations, such as XnorNN"
PER_LINE = 16  # numbers in a line of an array


@dataclass
class Program:
    """What a C program needs beyond the functions of layers.c.

    Args:
        image: The shape of an image (channels, height, width).
        arrays: The arrays and layers, as C text.
        calls: The statements that compute the scores.
        sections: The sections of layers.c that the program needs.
        has_signs: Whether activations are signs; otherwise they are floats.
        most: The largest number of values that each static array has to hold.
        filters: The number of filters in the stem.
    """

    image: tuple[int, int, int]
    has_signs: bool
    arrays: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    sections: set[str] = field(default_factory=set)
    most: dict[str, int] = field(default_factory=dict)
    filters: int = 0

    def values(self, channels: int) -> int:
        """Return how many values of the array `input` hold the channels of a pixel."""
        return -(-channels // 32) if self.has_signs else channels

    def need(self, **counts: int) -> None:
        """Note that static arrays have to hold at least so many values."""
        for name, count in counts.items():
            self.most[name] = max(self.most.get(name, 1), count)

    def add_array(self, kind: str, name: str, numbers: np.ndarray) -> None:
        """Add an array of numbers. Its memory is flash on a microcontroller."""
        lines = ",\n    ".join(
            ", ".join(map(_literal, part)) for part in np.array_split(numbers, -(-len(numbers) // PER_LINE))
        )
        self.arrays.append(f"STORED {kind} {name}[{len(numbers)}] = {{\n    {lines}\n}};")


def _literal(number: np.generic) -> str:
    if isinstance(number, np.floating):
        text = f"{number:.9g}"  # nine digits identify a 32-bit float
        return f"{text if any(c in text for c in '.e') else text + '.0'}f"
    return f"0x{number:x}" if isinstance(number, np.uint32) else str(number)


def program_of(net: nn.Module, shape: tuple[int, int, int]) -> Program:
    """Return the C program of a ConvNet or LeNet.

    Args:
        net: The net in eval mode, on the CPU.
        shape: The shape of one image (channels, height, width).

    Raises:
        CourseError: If the net, one of its layers or a setting is not supported; the message names it.
    """
    return _Writer(net, shape).write()


class _Writer:
    """Goes through a net layer by layer."""

    def __init__(self, net: nn.Module, shape: tuple[int, int, int]) -> None:
        self.net, self.names = net, conversion.names(net)
        if type(net) not in (ConvNet, LeNet):
            self._refuse(net, "only ConvNet and LeNet are supported")
        for module in net.modules():
            self._check_unchanged(module)
        acts = [m for m in net.modules() if isinstance(m, nn.ReLU | qnn.QuantIdentity | qnn.QuantReLU)]
        signs = {self._is_sign(module) for module in acts}
        if len(signs) != 1:
            self._refuse(net, "some activations are signs and others are not")
        self.program = Program(shape, has_signs=signs.pop())
        self.side = shape[1:]
        self.count = 0

    def write(self) -> Program:
        self.program.sections |= {"start", "activate", "main"}
        self.program.sections |= {"window", "signs"} if self.program.has_signs else {"relu"}
        (self._convnet if type(self.net) is ConvNet else self._lenet)()
        return self.program

    def _convnet(self) -> None:
        self.program.sections |= {"window", "stem", "skip"}
        self._stem(*self.net.stem)
        for block in self.net.blocks:
            self._block(block)
        pool, flatten, act, linear, norm = self.net.head
        if pool.output_size not in (1, (1, 1)) or type(flatten) is not nn.Flatten:
            self._refuse(pool, "only global max pooling is supported")
        self.program.calls.append(f"largest({self.side[0] * self.side[1]}, {linear.in_features});")
        self.side = (1, 1)
        self._activate(act, linear.in_features)
        self._layer(linear, norm)

    def _block(self, block: Block) -> None:
        act, conv, pool, norm = block.widen
        if self.count > 1:  # the stem has activated its output itself
            self._activate(act, conv.in_channels)
        self._layer(conv, norm, pool)
        act, conv, norm = block.refine
        self._activate(act, conv.in_channels)
        self._layer(conv, norm, is_skip=True)

    def _lenet(self) -> None:
        conv1, pool1, norm1, act1, conv2, pool2, norm2, act2 = self.net.features
        _, linear1, norm3, act3, linear2, norm4, act4, linear3, norm5 = self.net.classifier
        self._layer(conv1, norm1, pool1, source="pixels")
        self._activate(act1, conv2.in_channels)
        self._layer(conv2, norm2, pool2)
        # PyTorch flattens (channel, row, column); the program stores the channels of a pixel next to each other.
        order = torch.arange(linear1.in_features).view(conv2.out_channels, *self.side).permute(1, 2, 0).flatten()
        self.side = (1, 1)
        self._activate(act2, linear1.in_features)
        self._layer(linear1, norm3, order=order)
        for act, linear, norm in ((act3, linear2, norm4), (act4, linear3, norm5)):
            self._activate(act, linear.in_features)
            self._layer(linear, norm)

    def _activate(self, act: nn.Module, channels: int) -> None:
        places = self.side[0] * self.side[1]
        self.program.calls.append(f"activate({places}, {channels});")
        self.program.need(INPUTS=places * self.program.values(channels), FEATURES=places * channels)

    def _stem(self, stem: DCTStem, norm: nn.BatchNorm2d) -> None:
        gain, shift = self._affine(norm, torch.ones(1))
        height, width = self._output(stem.filters.shape[2], stem.stride, stem.padding)
        bits, filters = _packed(stem.filters.long().permute(2, 3, 1, 0).flatten(0, 2))  # (values of a patch, filters)
        settings = (stem.filters.shape[1], len(stem.filters), stem.filters.shape[2], stem.stride, stem.padding)
        self._add_layer("stem", settings, bits, filters, gain, shift, "floats")
        self.program.filters = len(stem.filters)
        self.program.need(STEM=stem.channels, LEVELS=len(stem.filters) * stem.filters[0].numel() + 7)
        self.program.need(INPUTS=height * width * self.program.values(stem.channels))
        self.side = (height, width)
        self.program.calls.append(f"stem(&LAYER_0, {stem.channels}); /* {height} x {width} x {stem.channels} */")

    def _layer(
        self,
        layer: nn.Module,
        norm: nn.Module,
        pool: nn.Module | None = None,
        is_skip: bool = False,
        source: str = "input",
        order: torch.Tensor | None = None,
    ) -> None:
        """Add a convolution or linear layer, the pooling after it, and its BatchNorm."""
        if reason := conversion.unsupported(layer):
            self._refuse(layer, reason)
        levels = self._levels(layer)
        if order is not None:
            levels = levels[:, order]
        levels = levels.view(*levels.shape[:2], *levels.shape[2:] or (1, 1))
        stride, padding = self._window(layer)
        (outputs, inputs, kernel, _), size, source_side = levels.shape, self._pool(pool), self.side
        height, width = self._output(kernel, stride, padding)
        scale = weights.scale(layer).flatten()
        bias = torch.zeros(1) if layer.bias is None else layer.bias
        gain, shift = self._affine(norm, scale, bias)
        patches = levels.permute(2, 3, 1, 0)  # (rows, columns, inputs, outputs)
        if source == "input" and self.program.has_signs:
            if (levels.abs() != 1).any():
                self._refuse(layer, "its inputs are signs, but its weights are not binary")
            bits, packed, row = 1, _sign_words(patches), "signs"
        else:
            bits, packed = _packed(patches.flatten(0, 2))
            row = "floats"
        self._add_layer(self._name(layer), (inputs, outputs, kernel, stride, padding), bits, packed, gain, shift, row)
        number, (rows, columns) = self.count - 1, source_side
        if is_skip:
            if (height, width) != source_side:
                self._refuse(layer, "a layer with a skip connection must keep the size of the features")
            self.program.calls.append(f"add(&LAYER_{number}, {source}, {rows}, {columns});")
        else:
            self.program.calls.append(f"replace(&LAYER_{number}, {source}, {rows}, {columns}, {size});")
        self.program.need(SUMS=width * outputs, OUTPUTS=outputs)
        self.side = (height // size, width // size)
        self.program.need(FEATURES=self.side[0] * self.side[1] * outputs)

    def _add_layer(self, title: str, settings, bits: int, packed, gain, shift, row: str) -> None:
        number, add = self.count, self.program.add_array
        inputs, outputs, kernel, stride, padding = settings
        self.program.arrays.append(f"/* {title}: {inputs} to {outputs} channels, {kernel} x {kernel} */")
        add("uint32_t" if packed.dtype == np.uint32 else "uint8_t", f"WEIGHTS_{number}", packed.flatten())
        add("float", f"GAIN_{number}", gain.numpy())
        add("float", f"SHIFT_{number}", shift.numpy())
        values = [inputs, outputs, kernel, stride, padding, bits]
        self.program.arrays.append(
            f"static const Layer LAYER_{number} = {{{', '.join(map(str, values))},\n"
            f"    WEIGHTS_{number}, GAIN_{number}, SHIFT_{number}, row_of_{row}}};"
        )
        self.count += 1

    def _levels(self, layer: nn.Module) -> torch.Tensor:
        if not isinstance(layer, qnn.QuantConv2d | qnn.QuantLinear) or bits_of(layer.weight_quant) is None:
            self._refuse(layer, "its weights are not integers times a scale")
        try:
            levels = weights.integers(layer)
        except ValueError as error:
            self._refuse(layer, str(error))
        if levels.min() < -128 or levels.max() > 127 or weights.scale(layer).numel() not in (1, len(levels)):
            self._refuse(layer, "its weights are not integers of 8 bits times one scale per layer or output channel")
        return levels

    def _window(self, layer: nn.Module) -> tuple[int, int]:
        """Return the stride and the padding of a layer."""
        if isinstance(layer, nn.Linear):
            return 1, 0
        before, after = conversion.pads(layer, *self.side)
        values = {*layer.kernel_size}, {*layer.stride}, {*before, *after}, {layer.groups, *layer.dilation}
        if any(len(value) > 1 for value in values) or values[3] != {1}:
            self._refuse(layer, "only square kernels, equal padding on all sides and no groups are supported")
        return layer.stride[0], before[0]

    def _output(self, kernel: int, stride: int, padding: int) -> tuple[int, int]:
        """Return height and width of a layer's output."""
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in self.side)
        return height, width

    def _pool(self, pool: nn.Module | None) -> int:
        if pool is None:
            return 1
        size, *settings = map(_pair, (pool.kernel_size, pool.stride, pool.padding, pool.dilation))
        if settings != [size, (0, 0), (1, 1)] or pool.ceil_mode or pool.return_indices:
            self._refuse(pool, "only windows side by side, without padding, are supported")
        if size[0] != size[1]:
            self._refuse(pool, "only square windows are supported")
        return size[0]

    def _affine(self, norm: nn.Module, scale: torch.Tensor, bias: torch.Tensor | float = 0.0):
        """Return the factor and the offset of each output that stand for the scale, the bias and the BatchNorm."""
        if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d) or norm.running_mean is None:
            self._refuse(norm, "a BatchNorm with running statistics has to follow each layer")
        factor = (norm.running_var.double() + norm.eps).rsqrt()
        factor = factor if norm.weight is None else factor * norm.weight.double()
        offset = 0.0 if norm.bias is None else norm.bias.double()
        shift = (torch.as_tensor(bias).double() - norm.running_mean.double()) * factor + offset
        return (factor * scale.double()).float().detach(), shift.float().detach()

    def _is_sign(self, act: nn.Module) -> bool:
        quantizer = getattr(act, "act_quant", None)
        if quantizer is None or not quantizer.is_quant_enabled:
            if isinstance(act, qnn.QuantIdentity):
                self._refuse(act, "it is not an activation")
            return False
        if not is_binary(quantizer) or not quantizer.is_signed or isinstance(act, qnn.QuantReLU):
            self._refuse(act, "activations must be a float ReLU or signs")
        if (quantizer.scale() != 1).any():
            self._refuse(act, "binary activations must have a scale of 1, as in BinaryActivation")
        return True

    def _check_unchanged(self, module: nn.Module) -> None:
        if module._forward_hooks or module._forward_pre_hooks:
            self._refuse(module, "it has a hook")
        known = next((kind for kind in KNOWN if type(module) is kind), None)
        if known is not None and (reason := conversion.differs_from(module, known)):
            self._refuse(module, reason)
        if known is None and any(type(module).__mro__[1:].count(kind) for kind in KNOWN):
            self._refuse(module, "layers of this class are not supported")

    def _name(self, module: nn.Module) -> str:
        return self.names[module].partition(" ")[0]

    def _refuse(self, module: nn.Module, reason: str):
        raise CourseError(f"{self.names[module]} cannot be written in C: {reason}. Instead, {REMEDY}.")


KNOWN = (
    *(ConvNet, LeNet, Block, DCTStem, nn.Sequential, nn.ReLU, nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.Flatten),
    *(nn.BatchNorm1d, nn.BatchNorm2d, qnn.QuantConv2d, qnn.QuantLinear, qnn.QuantIdentity, qnn.QuantReLU),
)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Return a setting of a pooling layer for rows and columns; PyTorch keeps it as it was given."""
    rows, columns = (value, value) if isinstance(value, int) else value
    return rows, columns


def _sign_words(patches: torch.Tensor) -> np.ndarray:
    """Return signs (rows, columns, inputs, outputs) as words of 32 inputs, uint32 (rows, columns, words, outputs)."""
    bits = (patches > 0).numpy()
    words = -(-bits.shape[2] // 32)
    bits = np.pad(bits, [(0, 0), (0, 0), (0, words * 32 - bits.shape[2]), (0, 0)])
    bits = bits.reshape(*bits.shape[:2], words, 32, -1).astype(np.uint32)
    return (bits << np.arange(32, dtype=np.uint32)[:, None]).sum(3, dtype=np.uint32)


def _packed(levels: torch.Tensor) -> tuple[int, np.ndarray]:
    """Return the bits per weight and the bytes of the weights (values of a patch, outputs), packed row by row.

    Eight outputs take one byte if all weights are signs. They take two bytes if all are -1, 0 or 1: one byte says which
    weights are 1, the other one which are -1. Other weights take a byte each.
    """
    numbers = np.pad(levels.numpy(), [(0, 0), (0, -levels.shape[1] % 8)])
    if levels.abs().max() > 1:
        return 8, numbers.astype(np.int8).view(np.uint8)
    plus, minus = (np.packbits(numbers == level, axis=1, bitorder="little") for level in (1, -1))
    return (1, plus) if (levels != 0).all() else (2, np.stack([plus, minus], axis=2).reshape(len(plus), -1))
