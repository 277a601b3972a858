"""Run a net in OpenVINO, with 1-bit convolutions where both weights and activations are binary."""

import hashlib
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatchmethod
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from xml.etree import ElementTree

import brevitas.nn as qnn
import numpy as np
import torch
from torch import nn

from ..common import interrupts
from ..common.errors import CourseError, check_type, check_whole, raise_if_of_the_machine
from ..common.files import as_path, check_readable, check_replaceable, write_atomically
from ..data.batches import STATISTICS, whitening_filter
from ..nets import weights
from ..nets.architectures import spec_of
from ..nets.convnet import Block, ConvNet
from ..nets.lenet import LeNet
from ..nets.quantizers import bits_of, is_binary
from ..nets.stem import DCTStem
from . import conversion, onnx_graph

if TYPE_CHECKING:
    import openvino

SUFFIX = ".xml"  # of graphs
PRECISIONS = ("f32", "bf16", None)
HUGE = 1e38  # larger than any activation
MISSING = "openvino is not installed: run `pip install -e '.[deploy]'` in the course folder."
SHA256 = "weights_sha256"  # the key of the checksum among a graph's metadata
MARKED = "The file asks for fp32 in every step, so it needs no option."
FAST = (
    'OpenVINO may compute in bf16, which changes some predictions: compile_model(path, "CPU", '
    '{"INFERENCE_PRECISION_HINT": "f32"}) prevents this.'
)


def available() -> bool:
    """Return whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def convert(
    net: nn.Module, batch: int = 1, shape: tuple[int, int, int] | None = None, preprocess: bool = False
) -> "openvino.Model":
    """Convert `net` to an OpenVINO model. The conversion works on a copy on the CPU, so `net` does not change.

    A layer whose weights and inputs are both binary becomes a BinaryConvolution, which multiplies 32 or more signs per
    instruction, unless it has groups or a number of input channels that is not a multiple of 8. A BatchNorm before a
    sign becomes the threshold of that sign, one per channel. Quantized activations become a FakeQuantize, which
    OpenVINO turns into 8-bit arithmetic in convolutions with integer weights. Everything else is computed in floats.

    After the conversion, the logits of a random batch are compared with those of the net (`conversion.check`).

    Args:
        net: The net to convert.
        batch: The batch size.
        shape: The shape of one input image (channels, height, width); by default what the net was built for.
        preprocess: Whether the model takes uint8 images and normalizes them as `data.normalize` does.

    Returns:
        A model from normalized images (batch, *shape) or, with `preprocess`, uint8 images, to logits (batch, classes).
        By default, OpenVINO computes in bf16 where the processor is fast at it, which moves values across the
        thresholds of quantizers. Compile the model with {"INFERENCE_PRECISION_HINT": "f32"}, as `compiled` does, or use
        the files of `save`, which need no hint.

    Raises:
        CourseError: If OpenVINO is not installed, if the net has a layer or a setting that cannot be converted (the
            message names it), or if the model's logits differ from those of the net.

    Reference:
        BinaryConvolution-1 in OpenVINO's operation set (docs.openvino.ai).
    """
    return _convert(net, batch, 0, shape, preprocess)[0]


def compiled(
    net: nn.Module,
    batch: int = 1,
    threads: int = 0,
    shape: tuple[int, int, int] | None = None,
    preprocess: bool = False,
    precision: str | None = "f32",
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Compile `net` for this CPU; return a function from normalized images (batch, *shape) to logits (batch, classes).

    The function raises a CourseError if it gets another number of images, or images of another shape.

    Args:
        net: The net to convert.
        batch: The batch size.
        threads: The number of CPU threads; 0 means all.
        shape: The shape of one input image (channels, height, width); by default what the net was built for.
        preprocess: Whether the function takes uint8 images and normalizes them as `data.normalize` does.
        precision: "f32" or "bf16"; None leaves the choice to OpenVINO, which takes bf16 where it is fast.

    Raises:
        CourseError: In the cases that `convert` names, or if there is no such precision.
    """
    if precision not in PRECISIONS:
        raise CourseError(f"precision is {precision!r}: pass 'f32', 'bf16' or None.")
    model, run = _convert(net, batch, threads, shape, preprocess)
    return run if precision == "f32" else _compile(model, threads, precision)


def save(
    net: nn.Module,
    path: str | Path,
    shape: tuple[int, int, int] | None = None,
    preprocess: bool | None = None,
    classes: Sequence[str] | None = None,
    exact: bool = True,
) -> list[Path]:
    """Save `net` for OpenVINO: the graph in `path` (.xml) and the weights next to it (.bin). Return both paths.

    The model is for one image; `model.reshape` changes that. Its input is called "images", its output "logits". Its
    metadata (`model.get_rt_info`) say what the net is. `load` checks that both files belong together.

    By default, OpenVINO computes in bf16 where the processor is fast at it, which moves values across the thresholds of
    quantizers. An exact file asks for fp32 in every step, whatever options it is compiled with. Afterwards, the logits
    that the files give with OpenVINO's default options are compared with those of the net (`conversion.check`).

    Args:
        net: The net to convert.
        path: The path of the graph.
        shape: The shape of one input image (channels, height, width); by default what the net was built for.
        preprocess: Whether the model takes uint8 images and normalizes them as `data.normalize` does. By default, it
            does so if `build` made the net.
        classes: The names of the classes in the order of the logits, for the metadata; by default those of the data
            set that a recorded net was trained on.
        exact: Whether the files give the net's predictions with any options. False lets OpenVINO compute in bf16, and
            in 8-bit integers where the net has 4-bit or 8-bit activations, which is faster and changes some
            predictions.

    Raises:
        CourseError: In the cases that `convert` names, if images of this shape cannot be normalized, if there are more
            or fewer classes than logits, or if `path` does not end with .xml or cannot be written.
    """
    path = as_path("path", path)
    if path.suffix != SUFFIX:
        raise CourseError(f"{path.name!r} does not end with {SUFFIX}, as OpenVINO's graphs do: add {SUFFIX}.")
    shape = conversion.image_shape(net, shape)
    check_type("exact", exact, bool, "True or False")
    takes_bytes = conversion.takes_bytes(net, shape, preprocess)
    model = _convert(net, 1, 0, shape, takes_bytes, exact)[0]
    import openvino

    outputs = model.output(0).get_partial_shape()[-1].get_length()
    entries = onnx_graph.metadata(net, shape, takes_bytes, conversion.class_names(net, classes, outputs))
    for key, value in (entries | {"precision": MARKED if exact else FAST}).items():
        model.set_rt_info(value, ["qathelpers", key])
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "net.xml"
        openvino.save_model(model, graph, compress_to_fp16=False)
        _complete(graph, is_marked=exact)
        if exact:
            run = conversion.in_batches(load(graph, precision=None), 1)
            compare, own = conversion.check_bytes if takes_bytes else conversion.check, conversion.on_cpu(net)
            compare(own, run, shape, "saved OpenVINO", conversion.may_flip(net), "save it with exact=False")
        _copy_pair(graph, path)
    return [path, path.with_suffix(".bin")]


def load(
    path: str | Path, batch: int = 1, threads: int = 0, precision: str | None = "f32"
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Compile a graph that `save` wrote; return a function from `batch` images, as the file takes them, to logits.

    Args:
        path: The graph (.xml); its weights are next to it (.bin).
        batch: The batch size.
        threads: See `compiled`.
        precision: See `compiled`.

    Raises:
        CourseError: If one of the two files is missing, or is damaged, or if they do not belong together.
    """
    path = as_path("path", path)
    check_whole("batch", batch, 1)
    check_whole("threads", threads, 0)
    if precision not in PRECISIONS:
        raise CourseError(f"precision is {precision!r}: pass 'f32', 'bf16' or None.")
    if not available():
        raise CourseError(MISSING)
    weights_path = path.with_suffix(".bin")
    for file in (path, weights_path):
        check_readable(file, "a file of OpenVINO", "save a net first, or copy both files, .xml and .bin")
    _check_pair(path, weights_path)
    import openvino

    try:
        model = openvino.Core().read_model(path)
        model.reshape([batch, *list(model.input(0).shape)[1:]])
    except Exception as error:  # the exceptions of OpenVINO have no common class
        raise_if_of_the_machine(error)
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise CourseError(f"OpenVINO cannot read {path} ({reason[0].rstrip('.')}): save the net again.") from error
    return _compile(model, threads, precision)


def _check_pair(path: Path, weights_path: Path) -> None:
    """Check that the weights are those for which `save` wrote the graph at `path`."""
    try:
        noted = ElementTree.parse(path).find(f"rt_info/qathelpers/{SHA256}")  # noqa: S314
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise CourseError(f"{path} is not a graph of OpenVINO, or is damaged: save the net again.") from error
    if noted is None:
        raise CourseError(f"{path} has no checksum of its weights: name a file that `save` wrote.")
    if noted.get("value") != _sha256(weights_path):
        raise CourseError(
            f"{weights_path} does not belong to {path.name}, or is damaged: copy both files, or save the net again."
        )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _copy_pair(graph: Path, path: Path) -> None:
    """Copy a graph and its weights to `path` and next to it: both or none of them, if the user interrupts it."""
    weights_path = path.with_suffix(".bin")

    def write(file: Path) -> None:
        shutil.copyfile(graph, file)
        # The weights are replaced after everything that takes time, right before the graph that belongs to them.
        write_atomically(weights_path, lambda other: shutil.copyfile(graph.with_suffix(".bin"), other))

    for target in (path, weights_path):
        check_replaceable(target)
    with interrupts.delayed():
        write_atomically(path, write)


def _complete(path: Path, is_marked: bool) -> None:
    """Add the checksum of the weights to the graph at `path` and, if wanted, a mark that no step may use bf16."""
    tree = ElementTree.parse(path)  # noqa: S314, OpenVINO has just written it
    entries = tree.getroot().find("rt_info/qathelpers")
    ElementTree.SubElement(entries, SHA256, value=_sha256(path.with_suffix(".bin")))
    if is_marked:
        _mark_fp32(tree)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _mark_fp32(tree: ElementTree.ElementTree) -> None:
    """Mark each step of a graph, so that OpenVINO does not compute it in bf16.

    OpenVINO writes this mark, the runtime attribute "precise", for steps whose precision must not be reduced. Its
    Python interface cannot set it.
    """
    for layer in tree.getroot().iter("layer"):
        found = layer.find("rt_info")
        if found is None:
            found = ElementTree.Element("rt_info")
            before = [child.tag for child in layer].count("data")  # the order that OpenVINO writes
            layer.insert(before, found)
        ElementTree.SubElement(found, "attribute", name="precise", version="0")


def _convert(
    net: nn.Module,
    batch: int,
    threads: int,
    shape: tuple[int, int, int] | None,
    preprocess: bool,
    exact: bool = False,
) -> tuple["openvino.Model", Callable[[torch.Tensor], torch.Tensor]]:
    """Return the model of `net`, and the model compiled for this CPU, after comparing its logits with the net's."""
    if not available():
        raise CourseError(MISSING)
    check_whole("batch", batch, 1)
    check_whole("threads", threads, 0)
    import openvino

    net, shape = conversion.on_cpu(net), conversion.image_shape(net, shape)
    conversion.check_shape(net, shape)
    takes_bytes = conversion.takes_bytes(net, shape, preprocess)
    graph = _Graph(net, exact)
    images = graph.op.parameter([batch, *shape], np.uint8 if takes_bytes else np.float32, onnx_graph.INPUT)
    with torch.no_grad():
        logits = graph.floats(graph.convert(net, graph.normalized(images, shape[0]) if takes_bytes else images))
    model = openvino.Model([logits], [images], spec_of(net).name)
    model.input(0).set_names({onnx_graph.INPUT})
    model.output(0).set_names({onnx_graph.OUTPUT})
    model.packed_weights = graph.packed_weights  # must live as long as the model, which reads them in place
    run = _compile(model, threads)
    compare = conversion.check_bytes if takes_bytes else conversion.check
    compare(net, conversion.in_batches(run, batch), shape, "OpenVINO", conversion.may_flip(net))
    return model, run


def _compile(
    model: "openvino.Model", threads: int, precision: str | None = "f32"
) -> Callable[[torch.Tensor], torch.Tensor]:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    options |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    inputs, outputs = request.get_input_tensor().data, request.get_output_tensor().data

    # Images and logits are copied into and out of the request's memory. Calling the compiled model instead would have
    # an overhead larger than the run time of a small net. The default argument keeps the model alive.
    def run(images: torch.Tensor, _model: openvino.Model = model) -> torch.Tensor:
        check_type("images", images, torch.Tensor, "images, such as dataset.test_images")
        if tuple(images.shape) != inputs.shape:  # copyto would repeat a single image
            raise CourseError(
                f"The model was compiled for images of the shape {inputs.shape}, but these have {tuple(images.shape)}: "
                "pass as many as `batch` says, or compile the net again."
            )
        if (images.dtype == torch.uint8) != (inputs.dtype == np.uint8):
            wanted = "uint8 images" if inputs.dtype == np.uint8 else "normalized images (`data.normalize`)"
            raise CourseError(f"The model takes {wanted}, but the images are {images.dtype}: pass such images.")
        np.copyto(inputs, images.cpu().numpy())
        request.infer()
        return torch.from_numpy(outputs.copy())

    return run


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
    """Adds the modules of a net to an OpenVINO graph, one after the other.

    Args:
        net: The net.
        exact: Whether `save` will mark each step as fp32. OpenVINO then must not merge steps, because a merged step has
            no mark, and it must not compute in 8-bit integers, because the steps between these have no marks either.
    """

    def __init__(self, net: nn.Module, exact: bool = False) -> None:
        import openvino.opset1
        import openvino.opset14

        self.op, self.op1 = openvino.opset14, openvino.opset1
        self.names, self.exact = conversion.names(net), exact
        self.has_fake_quantize = False
        self.packed_weights: list[np.ndarray] = []  # OpenVINO reads these arrays in place, so they must stay alive

    def convert(self, module: nn.Module, node):
        """Add `module` to the graph after `node`, and return its output, which may be a `_Scaled` or `_Signs`.

        Raises:
            CourseError: If it cannot be converted; the message names the module.
        """
        registry = vars(_Graph)["add"].dispatcher.registry
        closest = next((kind for kind in type(module).__mro__ if kind in registry and kind is not object), None)
        if closest is None:
            self._refuse(module, "layers of this class are not supported")
        if reason := conversion.differs_from(module, closest):
            self._refuse(module, reason)
        try:
            return self.add(module, node)
        except CourseError:
            raise
        except Exception as error:
            raise_if_of_the_machine(error)
            self._refuse(module, str(error).strip().partition("\n")[0], error)

    def _refuse(self, module: nn.Module, reason: str, cause: Exception | None = None) -> NoReturn:
        raise CourseError(
            f"{self.names[module]} cannot be converted for OpenVINO: {reason}. Export the net to ONNX instead."
        ) from cause

    def floats(self, node):
        """Return `node`, which may be a `_Scaled` or `_Signs`, as a node of floats."""
        if isinstance(node, _Scaled):
            factor, offset = (self._constant(self._per_channel(v, node.node)) for v in (node.factor, node.offset))
            return self.op.add(self.op.multiply(self._apart(node.node), factor), offset)
        if isinstance(node, _Signs):
            above = self.op.greater_equal(self.floats(node.node), self._constant(torch.tensor(0.0)))
            return self.op.select(above, self._constant(torch.tensor(1.0)), self._constant(torch.tensor(-1.0)))
        return node

    def _apart(self, node):
        """Return `node` so that OpenVINO cannot merge it with the step that follows, if the graph is to be exact.

        OpenVINO merges a factor into the weights of a convolution, but not across a step that clips, even if this step
        changes nothing.
        """
        return self.op.clamp(node, -HUGE, HUGE) if self.exact else node

    def normalized(self, images, channels: int):
        """Return uint8 images as `data.normalize` returns them: standardized and whitened."""
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) * 255 for values in STATISTICS[channels])
        centred = self.op.subtract(self.op.convert(images, "f32"), self._constant(mean))
        padded = self.op.divide(centred, self._constant(std))
        for axis in (2, 3):  # reflected borders; OpenVINO would compute its own step for this, Pad, in bf16
            side = self._size(padded)[axis]
            order = self._shape([1, *range(side), side - 2])
            padded = self.op.gather(padded, order, self._shape(axis))
        kernel = self._constant(whitening_filter(channels=channels))
        return self.op.convolution(padded, kernel, [1, 1], [0, 0], [0, 0], [1, 1])

    @singledispatchmethod
    def add(self, module: nn.Module, node):
        """Add one module; `convert` has checked that it computes what the registered class computes."""
        raise NotImplementedError

    @add.register
    def _(self, module: nn.Sequential, node):
        for child in module:  # `children()` would skip a layer that is used again
            node = self.convert(child, node)
        return node

    @add.register
    def _(self, module: ConvNet, node):
        return self.convert(module.head, self.convert(module.blocks, self.convert(module.stem, node)))

    @add.register
    def _(self, module: LeNet, node):
        return self.convert(module.classifier, self.convert(module.features, node))

    @add.register
    def _(self, module: Block, node):
        wide = self.floats(self.convert(module.widen, node))
        return self.op.add(wide, self.floats(self.convert(module.refine, wide)))

    @add.register
    def _(self, module: DCTStem, node):
        filters = self._constant(torch.cat([module.filters, -module.filters] * module.repeats))
        pads = [module.padding] * 2
        return self.op.convolution(self.floats(node), filters, [module.stride] * 2, pads, pads, [1, 1])

    @add.register(nn.Conv2d)
    @add.register(qnn.QuantConv2d)
    def _(self, module, node):
        self._check(module)
        if isinstance(node, _Signs) and _is_binary(module):
            return self._binary(node, module)
        if isinstance(node, _Signs) and (integers := _integers(module)) is not None:
            # Sums of integers are exact. Sums of scaled signs are not, and many of them would miss a threshold of 0.
            sums = self._sums(module, self.floats(node), self._converted(integers))
            return _Scaled(sums, weights.scale(module).flatten(), self._bias(module))
        sums = self._sums(module, self.floats(node), self._weight(module))
        return sums if module.bias is None else self.op.add(sums, self._constant(module.bias.view(1, -1, 1, 1)))

    def _sums(self, module: nn.Conv2d, node, weight):
        settings = self._window(module, node)
        if module.groups == 1:
            return self.op.convolution(node, weight, *settings)
        groups = [module.groups, module.out_channels // module.groups, *module.weight.shape[1:]]
        weight = self.op.reshape(weight, self._shape(groups), special_zero=False)
        return self.op.group_convolution(node, weight, *settings)

    @add.register(nn.Linear)
    @add.register(qnn.QuantLinear)
    def _(self, module, node):
        self._check(module)
        if isinstance(node, _Signs) and _is_binary(module) and len(self._size(node)) == 2:
            column = self.op.reshape(self.floats(node.node), self._shape([0, -1, 1, 1]), special_zero=True)
            sums = self._binary(_Signs(column), module)
            flat = self.op.reshape(sums.node, self._shape([0, -1]), special_zero=True)
            return _Scaled(flat, sums.factor, sums.offset)
        if isinstance(node, _Signs) and len(self._size(node)) == 2 and (integers := _integers(module)) is not None:
            sums = self.op.matmul(self.floats(node), self._converted(integers), False, True)
            return _Scaled(sums, weights.scale(module).flatten(), self._bias(module))
        # OpenVINO's 8-bit kernels for chains of linear layers return wrong results for some combinations of batch size
        # and threads (seen in 2026.4), so linear layers after a FakeQuantize get float weights.
        weight = self._constant(weights.quantized(module)) if self.has_fake_quantize else self._weight(module)
        sums = self.op.matmul(self.floats(node), weight, False, True)
        return sums if module.bias is None else self.op.add(sums, self._constant(module.bias))

    @add.register(nn.BatchNorm1d)
    @add.register(nn.BatchNorm2d)
    def _(self, module, node):
        if module.running_mean is None:
            self._refuse(module, "track_running_stats=False is not supported")
        factor = (
            (module.running_var + module.eps).rsqrt()
            if module.weight is None
            else module.weight / (module.running_var + module.eps).sqrt()
        )
        offset = -module.running_mean * factor if module.bias is None else module.bias - module.running_mean * factor
        if isinstance(node, _Scaled):
            return _Scaled(node.node, factor * node.factor, factor * node.offset + offset)
        return _Scaled(self.floats(node), factor, offset)

    @add.register
    def _(self, module: nn.ReLU, node):
        return self.op.relu(self.floats(node))

    @add.register(nn.Identity)
    @add.register(nn.Dropout)
    @add.register(nn.Dropout2d)
    def _(self, module, node):  # in eval mode, dropout does nothing
        return node

    @add.register
    def _(self, module: qnn.QuantIdentity, node):
        if not module.act_quant.is_quant_enabled:
            return node
        if is_binary(module.act_quant) and module.act_quant.is_signed:
            if (module.act_quant.scale() != 1).any():
                self._refuse(module, "binary activations must have a scale of 1, as in BinaryActivation")
            return _Signs(node)
        return self._fake_quantize(module, node)

    @add.register
    def _(self, module: qnn.QuantReLU, node):
        if module.input_quant.is_quant_enabled:
            self._refuse(module, "input_quant is not supported")
        if not module.act_quant.is_quant_enabled:
            return self.op.relu(self.floats(node))
        return self._fake_quantize(module, node)

    @add.register
    def _(self, module: nn.MaxPool2d, node):
        if module.return_indices:
            self._refuse(module, "return_indices=True is not supported")
        if isinstance(node, _Scaled) and (node.factor > 0).all():  # scaling keeps the maximum
            return _Scaled(self.add(module, node.node), node.factor, node.offset)
        size, stride, padding, dilation = (
            [value] * 2 if isinstance(value, int) else list(value)
            for value in (module.kernel_size, module.stride, module.padding, module.dilation)
        )
        if dilation == [1, 1] and not module.ceil_mode:
            return self.op1.max_pool(self.floats(node), stride, padding, padding, size, "floor", "explicit")
        rounding = "ceil_torch" if module.ceil_mode else "floor"
        pooled = self.op.max_pool(self.floats(node), stride, dilation, padding, padding, size, rounding, "explicit")
        return pooled.output(0)

    @add.register
    def _(self, module: nn.AdaptiveMaxPool2d, node):
        if module.output_size not in (1, (1, 1), [1, 1]) or module.return_indices:
            self._refuse(module, "only output_size=1 is supported, without indices")
        return self.op.reduce_max(self.floats(node), self._shape([2, 3]), keep_dims=True)

    @add.register
    def _(self, module: nn.Flatten, node):
        if isinstance(node, _Signs):
            return _Signs(self.add(module, node.node))
        node = self.floats(node)
        size = self._size(node)
        first, last = module.start_dim % len(size), module.end_dim % len(size)
        if first == 0:
            self._refuse(module, "flattening the batch dimension is not supported")
        shape = [0] * first + [-1] + size[last + 1 :]  # 0 keeps a dimension
        flat = self.op.reshape(node, self._shape(shape), special_zero=True)
        if not self.exact:
            return flat
        # OpenVINO would move an activation to before the flattening, where it has no mark, but not if two steps read
        # the same numbers.
        usual = self.op.greater_equal(flat, self._constant(torch.tensor(-HUGE)))
        return self.op.select(usual, flat, self._constant(torch.tensor(-HUGE)))

    def _check(self, layer: nn.Module) -> None:
        if reason := conversion.unsupported(layer):
            self._refuse(layer, reason)

    def _fake_quantize(self, module: nn.Module, node):
        quantizer, bits = module.act_quant, bits_of(module.act_quant)
        if bits is None:
            self._refuse(module, "activations in a floating-point format are not supported")
        if quantizer.is_signed:
            self._refuse(module, "signed activations of more than 1 bit are not supported")
        if (quantizer.zero_point() != 0).any():
            self._refuse(module, "activations with a zero point are not supported")
        self.has_fake_quantize = True
        levels, scale = 2**bits - bool(quantizer.is_narrow_range), quantizer.scale().detach()
        if self.exact:  # OpenVINO would turn a fake_quantize with 16 or 256 levels into 8-bit arithmetic
            steps = self.op.round(self.op.divide(self._apart(self.floats(node)), self._constant(scale)), "half_to_even")
            return self._apart(self.op.multiply(self.op.clamp(steps, 0.0, levels - 1.0), self._constant(scale)))
        low = self._constant(torch.tensor(0.0))
        high = self._constant((levels - 1) * scale)
        return self.op.fake_quantize(self.floats(node), low, high, low, high, levels=levels)

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

    def _window(self, layer: nn.Module, node) -> tuple[list[int], list[int], list[int], list[int]]:
        """Return the strides, the padding before and after, and the dilations of a convolution of `node`."""
        return (list(layer.stride), *conversion.pads(layer, *self._size(node)[2:]), list(layer.dilation))

    def _binary(self, signs: _Signs, layer: nn.Module) -> _Scaled:
        import openvino

        kernels, node = weights.integers(layer), self._bits(signs)
        shape = [*kernels.shape, *[1] * (4 - kernels.ndim)]
        bits = np.packbits((kernels > 0).numpy().flatten(), bitorder="little")
        self.packed_weights.append(bits)
        kernel = openvino.op.Constant(openvino.Tensor(bits, openvino.Shape(shape), openvino.Type.u1))
        is_linear = isinstance(layer, nn.Linear)
        settings = ([1, 1], [0, 0], [0, 0], [1, 1]) if is_linear else self._window(layer, node)
        sums = self.op1.binary_convolution(node, kernel, *settings, "xnor-popcount", 0.0, "explicit")
        return _Scaled(sums, weights.scale(layer).flatten(), self._bias(layer))

    @staticmethod
    def _bias(layer: nn.Module) -> torch.Tensor:
        return torch.zeros(1) if layer.bias is None else layer.bias

    def _weight(self, layer: nn.Module):
        """Return the weights as 8-bit integers times their scales if they are that, else as floats."""
        integers = _integers(layer)
        if integers is None:
            return self._constant(weights.quantized(layer))
        return self.op.multiply(self._converted(integers), self._constant(weights.scale(layer)))

    def _converted(self, integers: torch.Tensor):
        """Return integers that the file stores in 8 bits as a node of floats.

        For a linear layer with 8-bit weights, OpenVINO may round the inputs to 8 bits, but not if they are set apart.
        """
        return self._apart(self.op.convert(self.op.constant(integers.numpy().astype(np.int8)), "f32"))

    def _size(self, node) -> list[int]:
        while isinstance(node, _Scaled | _Signs):
            node = node.node
        return list((node if hasattr(node, "get_partial_shape") else node.output(0)).get_partial_shape().to_shape())

    def _per_channel(self, values: torch.Tensor, node) -> torch.Tensor:
        """Reshape `values` to broadcast along the channels of `node`, its second dimension."""
        return values.view([1, -1] + [1] * (len(self._size(node)) - 2))

    def _constant(self, tensor: torch.Tensor):
        return self.op.constant(tensor.detach().float().contiguous().numpy())

    def _shape(self, values: list[int] | int):
        return self.op.constant(np.array(values, dtype=np.int64))


def _integers(layer: nn.Module) -> torch.Tensor | None:
    """Return the weights in units of their scale if they are 8-bit integers times one scale per layer or channel."""
    if layer not in weights.quantized_layers(layer).values() or bits_of(layer.weight_quant) is None:
        return None
    try:
        values, scale, integers = weights.quantized(layer), weights.scale(layer), weights.integers(layer)
    except ValueError:  # the zero point is not an integer
        return None
    fits = integers.min() >= -128 and integers.max() <= 127 and scale.numel() in (1, len(values))
    return integers if fits and torch.allclose(integers * scale, values) else None


def _is_binary(layer: nn.Module) -> bool:
    # OpenVINO's kernel reads the bits of 8 channels at once. Its results are wrong if the last byte is not full.
    two_levels = isinstance(layer, qnn.QuantConv2d | qnn.QuantLinear) and is_binary(layer.weight_quant)
    return two_levels and layer.weight.shape[1] % 8 == 0 and getattr(layer, "groups", 1) == 1
