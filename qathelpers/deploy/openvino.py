"""Run a net in OpenVINO, with convolutions of single bits where weights and activations are binary."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatchmethod
from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import torch
from torch import nn

from .. import weights
from ..errors import CourseError
from ..frequencies import Frequencies
from ..nets import Block, ConvNet, LeNet

IMAGE = (3, 32, 32)  # channels, height, width
BEYOND = 1e38  # larger than any signal


def available() -> bool:
    """Return whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def convert(net: nn.Module, batch: int = 1, shape: tuple[int, int, int] = IMAGE) -> "openvino.Model":  # noqa: F821, imported where it is needed
    """Return `net` as an OpenVINO model for normalised images (batch, *shape).

    A layer whose weights and inputs are binary becomes a BinaryConvolution, which multiplies 32 signs and more in an
    instruction, and a BatchNorm before a sign becomes that sign's threshold, one a channel. Quantized activations
    become a FakeQuantize, which OpenVINO turns into 8-bit arithmetic where the weights are integers too. All else is
    computed in floats.
    Raises CourseError when OpenVINO is not installed, or the net holds a layer that this cannot convert.
    Source: OpenVINO's operation set, BinaryConvolution-1 (docs.openvino.ai).
    """
    if not available():
        raise CourseError("openvino is not installed: run `pip install -e '.[deploy]'` in the course.")
    import openvino

    graph = _Graph()
    images = graph.op.parameter([batch, *shape], np.float32)
    with torch.no_grad():
        logits = graph.floats(graph.add(net.eval(), images))
    model = openvino.Model([logits], [images], getattr(net, "name", "net"))
    model.kept = graph.bits
    return model


def compiled(
    net: nn.Module, batch: int = 1, threads: int = 0, shape: tuple[int, int, int] = IMAGE
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from normalised images (batch, *shape) to logits (batch, 10); `threads` 0: all."""
    source = convert(net, batch, shape)
    import openvino  # behind convert, which says how to get it

    options = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    request = openvino.Core().compile_model(source, "CPU", options).create_infer_request()
    inputs, outputs = request.get_input_tensor().data, request.get_output_tensor().data

    # Into and out of the request's own memory: calling the compiled model takes longer than a small net does.
    def run(images: torch.Tensor, _source: openvino.Model = source) -> torch.Tensor:
        np.copyto(inputs, images.numpy())
        request.infer()
        return torch.from_numpy(outputs.copy())

    return run


def save(net: nn.Module, path: str | Path) -> list[Path]:
    """Write `net` for OpenVINO, the graph to `path` (.xml), the weights beside it (.bin), and return both paths.

    Raises CourseError as `convert` does.
    """
    model, path = convert(net), Path(path)
    import openvino

    openvino.save_model(model, path, compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


@dataclass
class _Scaled:
    """A node times a factor plus an offset, one of each a channel: a sign needs neither, only where they cross zero."""

    of: object
    factor: torch.Tensor
    offset: torch.Tensor


@dataclass
class _Signs:
    """The signs of a node or a scaled one, not yet in the graph: as bits they are of use to a binary layer alone."""

    of: object


class _Graph:
    """Adds a net's modules to a graph, one after another."""

    def __init__(self) -> None:
        import openvino.opset1
        import openvino.opset13

        self.op, self.op1 = openvino.opset13, openvino.opset1
        self.bits: list[np.ndarray] = []  # OpenVINO reads them where they lie, so that they must not go away

    def floats(self, node):
        """Return `node` as a node of floats, whatever it was."""
        if isinstance(node, _Scaled):
            factor, offset = (self._constant(self._a_channel(v, node.of)) for v in (node.factor, node.offset))
            return self.op.add(self.op.multiply(node.of, factor), offset)
        if isinstance(node, _Signs):
            above = self.op.greater_equal(self.floats(node.of), self._constant(torch.tensor(0.0)))
            return self.op.select(above, self._constant(torch.tensor(1.0)), self._constant(torch.tensor(-1.0)))
        return node

    @singledispatchmethod
    def add(self, module: nn.Module, node):
        raise CourseError(f"{type(module).__name__} cannot be converted for OpenVINO: export the net to ONNX instead.")

    @add.register(nn.Sequential)
    @add.register(ConvNet)
    @add.register(LeNet)
    def _(self, module, node):
        for child in module.children():  # which the course's nets define in the order of their forward pass
            node = self.add(child, node)
        return node

    @add.register
    def _(self, module: Block, node):
        wide = self.floats(self.add(module.widen, node))
        return self.op.add(wide, self.floats(self.add(module.refine, wide)))

    @add.register
    def _(self, module: Frequencies, node):
        filters = self._constant(torch.cat([module.filters, -module.filters] * module.copies))
        return self._convolution(node, filters, module.stride, module.padding)

    @add.register
    def _(self, module: nn.Conv2d, node):
        padding, stride = module.padding[0], module.stride[0]
        if isinstance(node, _Signs) and _is_binary(module):
            return self._binary(node, module, stride, padding)
        return self._convolution(self.floats(node), self._weight(module), stride, padding)

    @add.register
    def _(self, module: nn.Linear, node):
        if isinstance(node, _Signs) and _is_binary(module):
            column = self.op.reshape(self.floats(node.of), self._shape([0, -1, 1, 1]), special_zero=True)
            sums = self._binary(_Signs(column), module, 1, 0)
            flat = self.op.reshape(sums.of, self._shape([0, -1]), special_zero=True)
            return _Scaled(flat, sums.factor, sums.offset)
        return self.op.matmul(self.floats(node), self._weight(module), False, True)

    @add.register(nn.BatchNorm1d)
    @add.register(nn.BatchNorm2d)
    def _(self, module, node):
        factor = module.weight / (module.running_var + module.eps).sqrt()
        offset = module.bias - module.running_mean * factor
        if isinstance(node, _Scaled):
            return _Scaled(node.of, factor * node.factor, factor * node.offset + offset)
        return _Scaled(node, factor, offset)

    @add.register
    def _(self, module: nn.ReLU, node):
        return self.op.relu(self.floats(node))

    @add.register
    def _(self, module: qnn.QuantIdentity, node):
        if int(module.act_quant.bit_width()) != 1:
            raise CourseError("Of signed activations only binary ones can be converted: export the net to ONNX.")
        return _Signs(node)

    @add.register
    def _(self, module: qnn.QuantReLU, node):
        levels = 2 ** int(module.act_quant.bit_width())
        low = self._constant(torch.tensor(0.0))
        high = self._constant((levels - 1) * module.act_quant.scale().detach())
        return self.op.fake_quantize(self.floats(node), low, high, low, high, levels=levels)

    @add.register
    def _(self, module: nn.MaxPool2d, node):
        if isinstance(node, _Scaled) and (node.factor > 0).all():  # then the largest stays the largest
            return _Scaled(self.add(module, node.of), node.factor, node.offset)
        size = [module.kernel_size] * 2
        return self.op1.max_pool(self.floats(node), size, [0, 0], [0, 0], size, "floor", "explicit")

    @add.register
    def _(self, module: nn.AdaptiveMaxPool2d, node):
        return self.op.reduce_max(self.floats(node), self._shape([2, 3]), keep_dims=True)

    @add.register
    def _(self, module: nn.Flatten, node):
        if isinstance(node, _Signs):
            return _Signs(self.add(module, node.of))
        return self.op.reshape(self.floats(node), self._shape([0, -1]), special_zero=True)

    def _bits(self, signs: _Signs):
        """Return 1 where a signal is at its channel's threshold or above, else 0; inverted for a negative factor."""
        scaled = signs.of
        if not isinstance(scaled, _Scaled):
            scaled = _Scaled(scaled, torch.ones(1), torch.zeros(1))
        threshold, rising = -scaled.offset / scaled.factor, scaled.factor >= 0
        # fake_quantize gives its first value up to the threshold, its second one above; a tie belongs to the sign +1.
        threshold = torch.where(rising, threshold.nextafter(torch.tensor(-torch.inf)), threshold)
        always = torch.where(scaled.offset >= 0, -BEYOND, BEYOND)  # the same sign, whatever the signal
        threshold = torch.where(scaled.factor == 0, always, threshold).clamp(-BEYOND, BEYOND)
        limit, low, high = (
            self._constant(self._a_channel(v, scaled.of)) for v in (threshold, (~rising).float(), rising.float())
        )
        return self.op.fake_quantize(scaled.of, limit, limit, low, high, levels=2)

    def _convolution(self, node, weight, stride: int, padding: int):
        pads = [padding, padding]
        return self.op.convolution(node, weight, [stride] * 2, pads, pads, [1, 1])

    def _binary(self, signs: _Signs, layer: nn.Module, stride: int, padding: int) -> _Scaled:
        import openvino

        kernels = weights.integers(layer)
        shape = [*kernels.shape, *[1] * (4 - kernels.ndim)]
        bits = np.packbits((kernels > 0).numpy().flatten(), bitorder="little")
        self.bits.append(bits)
        kernel = openvino.op.Constant(openvino.Tensor(bits, openvino.Shape(shape), openvino.Type.u1))
        pads = [padding, padding]
        sums = self.op1.binary_convolution(
            self._bits(signs), kernel, [stride] * 2, pads, pads, [1, 1], "xnor-popcount", 0.0, "explicit"
        )
        return _Scaled(sums, weights.scale(layer).flatten(), torch.zeros(1))

    def _weight(self, layer: nn.Module):
        if layer not in weights.quantized_layers(layer).values():
            return self._constant(weights.quantized(layer))
        integers = self.op.constant(weights.integers(layer).numpy().astype(np.int8))
        return self.op.multiply(self.op.convert(integers, "f32"), self._constant(weights.scale(layer)))

    @staticmethod
    def _a_channel(values: torch.Tensor, node) -> torch.Tensor:
        """Return `values` shaped so that they go with the channels of `node`, its second dimension."""
        return values.view([1, -1] + [1] * (len(node.output(0).get_partial_shape()) - 2))

    def _constant(self, tensor: torch.Tensor):
        return self.op.constant(tensor.detach().float().contiguous().numpy())

    def _shape(self, values: list[int]):
        return self.op.constant(np.array(values, dtype=np.int64))


def _is_binary(layer: nn.Module) -> bool:
    # OpenVINO's kernel takes the bits of 8 channels at once, and is wrong about what is left of a byte.
    two_levels = isinstance(layer, qnn.QuantConv2d | qnn.QuantLinear) and int(layer.weight_quant.bit_width()) == 1
    return two_levels and layer.weight.shape[1] % 8 == 0
