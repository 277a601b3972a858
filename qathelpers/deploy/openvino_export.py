"""Run a net in OpenVINO, with 1-bit convolutions where both weights and activations are binary."""

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatchmethod
from pathlib import Path
from typing import TYPE_CHECKING

import brevitas.nn as qnn
import numpy as np
import torch
from torch import nn

from ..common.errors import CourseError
from ..nets import weights
from ..nets.architectures import spec_of
from ..nets.convnet import Block, ConvNet
from ..nets.lenet import LeNet
from ..nets.quantizers import is_binary
from ..nets.stem import DCTStem

if TYPE_CHECKING:
    import openvino

IMAGE = (3, 32, 32)  # channels, height, width
HUGE = 1e38  # larger than any activation


def available() -> bool:
    """Return whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def convert(net: nn.Module, batch: int = 1, shape: tuple[int, int, int] = IMAGE) -> "openvino.Model":
    """Convert `net` to an OpenVINO model. The conversion works on a copy on the CPU, so `net` does not change.

    A layer whose weights and inputs are both binary becomes a BinaryConvolution, which multiplies 32 or more signs per
    instruction. A BatchNorm before a sign becomes the threshold of that sign, one per channel. Quantized activations
    become a FakeQuantize, which OpenVINO turns into 8-bit arithmetic if the weights are integers too. Everything else
    is computed in floats.

    Args:
        net: The net to convert.
        batch: The batch size.
        shape: The shape of one input image (channels, height, width).

    Returns:
        A model from normalized images (batch, *shape) to logits (batch, 10).

    Raises:
        CourseError: If OpenVINO is not installed, or if the net has a layer that cannot be converted.

    Reference:
        BinaryConvolution-1 in OpenVINO's operation set (docs.openvino.ai).
    """
    if not available():
        raise CourseError("openvino is not installed: run `pip install -e '.[deploy]'` in the course folder.")
    import openvino

    graph = _Graph()
    images = graph.op.parameter([batch, *shape], np.float32)
    with torch.no_grad():
        logits = graph.floats(graph.add(copy.deepcopy(net).cpu().eval(), images))
    model = openvino.Model([logits], [images], spec_of(net).name)
    model.packed_weights = graph.packed_weights  # must live as long as the model, which reads them in place
    return model


def compiled(
    net: nn.Module, batch: int = 1, threads: int = 0, shape: tuple[int, int, int] = IMAGE
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Compile `net` for this CPU; return a function from normalized images (batch, *shape) to logits (batch, 10).

    Args:
        net: The net to convert.
        batch: The batch size.
        threads: The number of CPU threads; 0 means all.
        shape: The shape of one input image (channels, height, width).

    Raises:
        CourseError: In the cases that `convert` names.
    """
    model = convert(net, batch, shape)
    import openvino  # after convert, whose error message says how to install OpenVINO

    options = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    inputs, outputs = request.get_input_tensor().data, request.get_output_tensor().data

    # Images and logits are copied into and out of the request's memory. Calling the compiled model instead would have
    # an overhead larger than the run time of a small net. The default argument keeps the model alive.
    def run(images: torch.Tensor, _model: openvino.Model = model) -> torch.Tensor:
        np.copyto(inputs, images.cpu().numpy())
        request.infer()
        return torch.from_numpy(outputs.copy())

    return run


def save(net: nn.Module, path: str | Path) -> list[Path]:
    """Save `net` for OpenVINO: the graph in `path` (.xml) and the weights next to it (.bin). Return both paths.

    Raises:
        CourseError: In the cases that `convert` names.
    """
    model, path = convert(net), Path(path)
    import openvino

    openvino.save_model(model, path, compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


@dataclass
class _Scaled:
    """A node times a factor plus an offset, with one factor and one offset per channel.

    The multiplication and the addition are not in the graph yet. If a sign follows, they are never added: the sign
    changes where factor x node + offset crosses zero, and this value of the node becomes the threshold of the channel.
    """

    node: object
    factor: torch.Tensor
    offset: torch.Tensor


@dataclass
class _Signs:
    """The signs of a node or of a `_Scaled`.

    They are not in the graph yet: a binary layer needs them as bits, all other layers as the floats -1 and 1.
    """

    node: object


class _Graph:
    """Adds the modules of a net to an OpenVINO graph, one after the other."""

    def __init__(self) -> None:
        import openvino.opset1
        import openvino.opset13

        self.op, self.op1 = openvino.opset13, openvino.opset1
        self.packed_weights: list[np.ndarray] = []  # OpenVINO reads these arrays in place, so they must stay alive

    def floats(self, node):
        """Return `node`, which may be a `_Scaled` or `_Signs`, as a node of floats."""
        if isinstance(node, _Scaled):
            factor, offset = (self._constant(self._per_channel(v, node.node)) for v in (node.factor, node.offset))
            return self.op.add(self.op.multiply(node.node, factor), offset)
        if isinstance(node, _Signs):
            above = self.op.greater_equal(self.floats(node.node), self._constant(torch.tensor(0.0)))
            return self.op.select(above, self._constant(torch.tensor(1.0)), self._constant(torch.tensor(-1.0)))
        return node

    @singledispatchmethod
    def add(self, module: nn.Module, node):
        raise CourseError(f"{type(module).__name__} cannot be converted for OpenVINO: export the net to ONNX instead.")

    @add.register(nn.Sequential)
    @add.register(ConvNet)
    @add.register(LeNet)
    def _(self, module, node):
        for child in module.children():  # the nets define their children in the order in which forward calls them
            node = self.add(child, node)
        return node

    @add.register
    def _(self, module: Block, node):
        wide = self.floats(self.add(module.widen, node))
        return self.op.add(wide, self.floats(self.add(module.refine, wide)))

    @add.register
    def _(self, module: DCTStem, node):
        filters = self._constant(torch.cat([module.filters, -module.filters] * module.repeats))
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
            column = self.op.reshape(self.floats(node.node), self._shape([0, -1, 1, 1]), special_zero=True)
            sums = self._binary(_Signs(column), module, 1, 0)
            flat = self.op.reshape(sums.node, self._shape([0, -1]), special_zero=True)
            return _Scaled(flat, sums.factor, sums.offset)
        return self.op.matmul(self.floats(node), self._weight(module), False, True)

    @add.register(nn.BatchNorm1d)
    @add.register(nn.BatchNorm2d)
    def _(self, module, node):
        factor = module.weight / (module.running_var + module.eps).sqrt()
        offset = module.bias - module.running_mean * factor
        if isinstance(node, _Scaled):
            return _Scaled(node.node, factor * node.factor, factor * node.offset + offset)
        return _Scaled(node, factor, offset)

    @add.register
    def _(self, module: nn.ReLU, node):
        return self.op.relu(self.floats(node))

    @add.register
    def _(self, module: qnn.QuantIdentity, node):
        if not is_binary(module.act_quant) or float(module.act_quant.scale()) != 1:
            raise CourseError(
                "QuantIdentity can only be converted for OpenVINO with 1 bit and a scale of 1, as in BinaryActivation: "
                "export the net to ONNX instead."
            )
        return _Signs(node)

    @add.register
    def _(self, module: qnn.QuantReLU, node):
        levels = 2 ** int(module.act_quant.bit_width())
        low = self._constant(torch.tensor(0.0))
        high = self._constant((levels - 1) * module.act_quant.scale().detach())
        return self.op.fake_quantize(self.floats(node), low, high, low, high, levels=levels)

    @add.register
    def _(self, module: nn.MaxPool2d, node):
        if isinstance(node, _Scaled) and (node.factor > 0).all():  # scaling keeps the maximum
            return _Scaled(self.add(module, node.node), node.factor, node.offset)
        size = [module.kernel_size] * 2
        return self.op1.max_pool(self.floats(node), size, [0, 0], [0, 0], size, "floor", "explicit")

    @add.register
    def _(self, module: nn.AdaptiveMaxPool2d, node):
        return self.op.reduce_max(self.floats(node), self._shape([2, 3]), keep_dims=True)

    @add.register
    def _(self, module: nn.Flatten, node):
        if isinstance(node, _Signs):
            return _Signs(self.add(module, node.node))
        return self.op.reshape(self.floats(node), self._shape([0, -1]), special_zero=True)

    def _bits(self, signs: _Signs):
        """Return `signs` as bits: 1 where the sign is +1, else 0.

        With a positive factor, the sign is +1 where the node is at or above the threshold of its channel. With a
        negative factor, it is +1 at or below the threshold.
        """
        scaled = signs.node
        if not isinstance(scaled, _Scaled):
            scaled = _Scaled(scaled, torch.ones(1), torch.zeros(1))
        threshold, rising = -scaled.offset / scaled.factor, scaled.factor >= 0
        # fake_quantize returns its low value up to and including the threshold, and its high value above it. The sign
        # of 0 is +1, so where +1 is the high value, the threshold moves to the next smaller float.
        threshold = torch.where(rising, threshold.nextafter(torch.tensor(-torch.inf)), threshold)
        always = torch.where(scaled.offset >= 0, -HUGE, HUGE)  # with a factor of 0, the sign is always the same
        threshold = torch.where(scaled.factor == 0, always, threshold).clamp(-HUGE, HUGE)
        limit, low, high = (
            self._constant(self._per_channel(v, scaled.node)) for v in (threshold, (~rising).float(), rising.float())
        )
        return self.op.fake_quantize(scaled.node, limit, limit, low, high, levels=2)

    def _convolution(self, node, weight, stride: int, padding: int):
        pads = [padding, padding]
        return self.op.convolution(node, weight, [stride] * 2, pads, pads, [1, 1])

    def _binary(self, signs: _Signs, layer: nn.Module, stride: int, padding: int) -> _Scaled:
        import openvino

        kernels = weights.integers(layer)
        shape = [*kernels.shape, *[1] * (4 - kernels.ndim)]
        bits = np.packbits((kernels > 0).numpy().flatten(), bitorder="little")
        self.packed_weights.append(bits)
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
    def _per_channel(values: torch.Tensor, node) -> torch.Tensor:
        """Reshape `values` to broadcast along the channels of `node`, its second dimension."""
        return values.view([1, -1] + [1] * (len(node.output(0).get_partial_shape()) - 2))

    def _constant(self, tensor: torch.Tensor):
        return self.op.constant(tensor.detach().float().contiguous().numpy())

    def _shape(self, values: list[int]):
        return self.op.constant(np.array(values, dtype=np.int64))


def _is_binary(layer: nn.Module) -> bool:
    # OpenVINO's kernel reads the bits of 8 channels at once. Its results are wrong if the last byte is not full.
    two_levels = isinstance(layer, qnn.QuantConv2d | qnn.QuantLinear) and is_binary(layer.weight_quant)
    return two_levels and layer.weight.shape[1] % 8 == 0
