"""Run a net in OpenVINO, with convolutions of single bits where weights and activations are binary."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatchmethod

import brevitas.nn as qnn
import numpy as np
import torch
from torch import nn

from .. import weights
from ..errors import CourseError
from ..frequencies import Frequencies
from ..nets import Block, ConvNet, LeNet

# Of a sum of signs, 0 is a tie; Brevitas takes it for +1, and "above" must do so too.
JUST_BELOW_ZERO = -1e-30


def available() -> bool:
    """Return whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def convert(net: nn.Module, batch: int = 1) -> "openvino.Model":  # noqa: F821, imported where it is needed
    """Return `net` as an OpenVINO model for images (batch, 3, 32, 32), normalised.

    A convolution whose weights and inputs are binary becomes a BinaryConvolution, which multiplies 32 signs and more in
    an instruction; everything else is computed in floats, with the quantized weights as constants.
    Raises CourseError when OpenVINO is not installed, or the net holds a layer that this cannot convert.
    Source: OpenVINO's operation set, BinaryConvolution-1 (docs.openvino.ai).
    """
    if not available():
        raise CourseError("openvino is not installed: run `pip install -e '.[deploy]'` in the course.")
    import openvino

    graph = _Graph()
    images = graph.op.parameter([batch, 3, 32, 32], np.float32)
    with torch.no_grad():
        logits = graph.add(net.eval(), images)
    model = openvino.Model([logits], [images], getattr(net, "name", "net"))
    model.kept = graph.bits
    return model


def compiled(net: nn.Module, batch: int = 1, threads: int = 0) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from normalised images (batch, 3, 32, 32) to logits (batch, 10); `threads` 0: all."""
    source = convert(net, batch)
    import openvino  # behind convert, which says how to get it

    options = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    model = openvino.Core().compile_model(source, "CPU", options)

    def run(images: torch.Tensor, _source: openvino.Model = source) -> torch.Tensor:
        return torch.from_numpy(model([images.contiguous().numpy()])[0].copy())

    return run


@dataclass
class _Signs:
    """The signs of a node, not yet in the graph: as bits they are of use to a binary layer alone."""

    of: object


class _Graph:
    """Adds a net's modules to a graph, one after another."""

    def __init__(self) -> None:
        import openvino.opset1
        import openvino.opset13

        self.op, self.op1 = openvino.opset13, openvino.opset1
        self.bits: list[np.ndarray] = []  # OpenVINO reads them where they lie, so that they must not go away

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
        wide = self.add(module.widen, node)
        return self.op.add(wide, self.add(module.refine, wide))

    @add.register
    def _(self, module: Frequencies, node):
        filters = torch.cat([module.filters, -module.filters])
        return self._convolution(node, filters, stride=2, padding=1)

    @add.register
    def _(self, module: nn.Conv2d, node):
        padding, stride = module.padding[0], module.stride[0]
        if isinstance(node, _Signs) and _is_binary(module):
            return self._binary(node.of, module, stride, padding)
        return self._convolution(self._floats(node), weights.quantized(module), stride, padding)

    @add.register
    def _(self, module: nn.Linear, node):
        if isinstance(node, _Signs) and _is_binary(module):
            columns = self.op.reshape(node.of, self._shape([0, module.in_features, 1, 1]), special_zero=True)
            sums = self._binary(columns, module, 1, 0)
            return self.op.reshape(sums, self._shape([0, module.out_features]), special_zero=True)
        return self.op.matmul(self._floats(node), self._constant(weights.quantized(module)), False, True)

    @add.register(nn.BatchNorm1d)
    @add.register(nn.BatchNorm2d)
    def _(self, module, node):
        factor = module.weight / (module.running_var + module.eps).sqrt()
        offset = module.bias - module.running_mean * factor
        shape = [1, -1] + [1] * (len(node.output(0).get_partial_shape()) - 2)
        scaled = self.op.multiply(node, self._constant(factor.view(shape)))
        return self.op.add(scaled, self._constant(offset.view(shape)))

    @add.register
    def _(self, module: nn.ReLU, node):
        return self.op.relu(node)

    @add.register(qnn.QuantIdentity)
    @add.register(qnn.QuantReLU)
    def _(self, module, node):
        if int(module.act_quant.bit_width()) != 1:
            raise CourseError("Of quantized activations only binary ones can be converted: export the net to ONNX.")
        return _Signs(node)

    @add.register
    def _(self, module: nn.MaxPool2d, node):
        size = [module.kernel_size] * 2
        return self.op1.max_pool(node, size, [0, 0], [0, 0], size, "floor", "explicit")

    @add.register
    def _(self, module: nn.AdaptiveMaxPool2d, node):
        return self.op.reduce_max(node, self._shape([2, 3]), keep_dims=True)

    @add.register
    def _(self, module: nn.Flatten, node):
        if isinstance(node, _Signs):
            return _Signs(self.add(module, node.of))
        return self.op.reshape(node, self._shape([0, -1]), special_zero=True)

    def _floats(self, node):
        if not isinstance(node, _Signs):
            return node
        above = self.op.greater_equal(node.of, self._constant(torch.tensor(0.0)))
        return self.op.select(above, self._constant(torch.tensor(1.0)), self._constant(torch.tensor(-1.0)))

    def _bits(self, node):
        threshold, zero, one = (self._constant(torch.full((1, 1, 1, 1), v)) for v in (JUST_BELOW_ZERO, 0.0, 1.0))
        return self.op.fake_quantize(node, threshold, threshold, zero, one, levels=2)

    def _convolution(self, node, weight: torch.Tensor, stride: int, padding: int):
        pads = [padding, padding]
        return self.op.convolution(node, self._constant(weight), [stride] * 2, pads, pads, [1, 1])

    def _binary(self, node, layer: nn.Module, stride: int, padding: int):
        import openvino

        signs = weights.integers(layer)
        shape = [*signs.shape, *[1] * (4 - signs.ndim)]
        bits = np.packbits((signs > 0).numpy().flatten(), bitorder="little")
        self.bits.append(bits)
        kernel = openvino.op.Constant(openvino.Tensor(bits, openvino.Shape(shape), openvino.Type.u1))
        pads = [padding, padding]
        sums = self.op1.binary_convolution(
            self._bits(node), kernel, [stride] * 2, pads, pads, [1, 1], "xnor-popcount", 0.0, "explicit"
        )
        return self.op.multiply(sums, self._constant(weights.scale(layer).view(1, -1, 1, 1)))

    def _constant(self, tensor: torch.Tensor):
        return self.op.constant(tensor.detach().float().contiguous().numpy())

    def _shape(self, values: list[int]):
        return self.op.constant(np.array(values, dtype=np.int64))


def _is_binary(layer: nn.Module) -> bool:
    # OpenVINO's kernel takes the bits of 8 channels at once, and is wrong about what is left of a byte.
    two_levels = isinstance(layer, qnn.QuantConv2d | qnn.QuantLinear) and int(layer.weight_quant.bit_width()) == 1
    return two_levels and layer.weight.shape[1] % 8 == 0
