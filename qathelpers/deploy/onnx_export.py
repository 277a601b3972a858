"""Export a net to an ONNX file for other runtimes, and run that file to check that it computes the same."""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import torch
from torch import nn

from ..common.errors import CourseError, check_type, check_whole, raise_if_of_the_machine
from ..common.files import as_path, check_readable, write_atomically
from ..nets import weights
from ..nets.architectures import spec_of
from ..nets.quantizers import is_binary
from . import conversion, onnx_graph

if TYPE_CHECKING:
    import onnx

PACKAGES = ("onnx", "onnxoptimizer", "onnxscript", "onnxruntime", "qonnx")
FORMATS = ("qcdq", "qonnx")
IMAGES = "a tensor of images, such as dataset.test_images"


def missing() -> list[str]:
    """List the packages that this module needs and that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def export(
    net: nn.Module,
    path: str | Path,
    format: str = "qcdq",
    images: int | None = None,
    shape: tuple[int, int, int] | None = None,
    preprocess: bool | None = None,
    classes: Sequence[str] | None = None,
    exact: bool = True,
) -> Path:
    """Export `net` to an ONNX file. The export works on a copy, so `net` does not change.

    The file of a net that `build` made takes images as bytes, uint8 (n, channels, h, w), and normalizes them itself, so
    it is complete. Its input is called "images", its output "logits". The file's metadata say what the net is. After
    the export, the logits that the file gives for a random batch are compared with those of the net
    (`conversion.check`).

    Args:
        net: The net to export.
        path: The file to write.
        format: "qcdq" uses the standard operators QuantizeLinear, Clip and DequantizeLinear, which every runtime knows.
            "qonnx" uses the operators of QONNX, which support any number of bits and which FINN reads.
        images: The batch size, if the file is to accept only batches of exactly this many images. By default, a QCDQ
            file accepts batches of any size, and a QONNX file one image, because tools for QONNX need a fixed size.
        shape: The shape of one input image (channels, height, width); by default what the net was built for.
        preprocess: Whether the file takes uint8 images and normalizes them as `data.normalize` does. By default, it
            does so if `build` made the net. With False, it takes normalized images as floats; FINN and hls4ml need
            this.
        classes: The names of the classes in the order of the logits, for the metadata; by default those of the data
            set that a recorded net was trained on.
        exact: Whether a QCDQ file gives the net's predictions in ONNX Runtime with its default options. With False,
            ONNX Runtime computes linear layers in 8-bit integers, for which it rounds their inputs, even if the net
            does not quantize them.

    Returns:
        The path.

    Raises:
        CourseError: If the format does not exist or cannot hold the net, if the file's logits differ from those of the
            net, if images of this shape cannot be normalized, if there are more or fewer classes than logits, if a
            package is missing, or if `path` cannot be written.

    Reference:
        A. Pappalardo et al., QONNX (arXiv 2206.07527).
    """
    if format not in FORMATS:
        raise CourseError(f"There is no format {format!r}: choose one of {', '.join(FORMATS)}.")
    check_packages()
    weights.check_net(net)
    check_type("exact", exact, bool, "True or False")
    path = as_path("path", path)
    if format == "qcdq" and _has_binary(net):
        raise CourseError(
            f"format='qcdq' cannot hold {spec_of(net).name}, because QCDQ has no operator for binary values: use "
            "format='qonnx', or export a ternary net."
        )
    if images is None and format == "qonnx":
        images = 1
    if images is not None:
        check_whole("images", images, 1)
    expected, shape = conversion.on_cpu(net), conversion.image_shape(net, shape)
    takes_bytes = conversion.takes_bytes(net, shape, preprocess)
    outputs = conversion.check_shape(expected, shape)
    entries = onnx_graph.metadata(net, shape, takes_bytes, conversion.class_names(net, classes, outputs))
    if not exact:
        entries["precision"] = onnx_graph.ROUNDING + entries["precision"]
    remedy = "run the net in PyTorch instead"
    if not _has_binary(net):
        other = next(other for other in FORMATS if other != format)
        remedy = f"export it with format='{other}', or {remedy}"
    # A batch of one image would let the tracer take the batch size for a constant.
    example = torch.randn(images or 2, *shape, generator=torch.Generator().manual_seed(0))
    compare = conversion.check_bytes if takes_bytes else conversion.check

    def write(file: Path) -> None:
        # A failed export leaves the exported net unusable, and copies of that net, too. So a copy of its own is used.
        copy = conversion.with_plain_stem(conversion.on_cpu(net))
        name = onnx_graph.NORMALIZED if takes_bytes else onnx_graph.INPUT
        _write(copy, file, format, example, remedy, name, fixed=images is not None)
        onnx_graph.complete(file, shape, takes_bytes, entries, exact and format == "qcdq")
        # An exact file has to give the right logits with all optimizations of ONNX Runtime, too.
        found = conversion.in_batches(lambda batch: run(file, batch, not exact), images or conversion.IMAGES - 1)
        compare(expected, found, shape, format.upper(), conversion.may_flip(net), remedy)

    write_atomically(path, write)
    return path


def check_packages() -> None:
    """Check that the packages that this module needs are installed.

    Raises:
        CourseError: If some are missing; the message names them.
    """
    if missing():
        raise CourseError(
            f"Not installed: {', '.join(missing())}. Run `pip install -e '.[deploy]'` in the course folder."
        )


def run(path: str | Path, images: torch.Tensor, exact: bool = True) -> torch.Tensor:
    """Run a file that `export` wrote.

    ONNX Runtime runs QCDQ files. QONNX files are run by the package `qonnx`, one operator at a time, which is slow.

    Args:
        path: The ONNX file.
        images: Images (n, channels, h, w) as the file takes them: uint8 from 0 to 255, or normalized floats if it was
            exported with preprocess=False. If the file was exported for a fixed number of images above 1, exactly so
            many.
        exact: Whether ONNX Runtime applies basic optimizations only. With False, it applies all of them, which is
            faster. In a file that was exported with exact=False, it then rounds activations that the net does not
            quantize.

    Returns:
        Logits (n, classes), on the CPU.

    Raises:
        CourseError: If the file is missing or is not an ONNX file, or if the images have another type or shape than the
            file takes.
    """
    if is_qonnx(load(path)):
        return _run_qonnx(path, images)
    return session(path, exact)(images)


def load(path: str | Path) -> "onnx.ModelProto":
    """Return the model in an ONNX file.

    Raises:
        CourseError: If a package is missing, or if the file is missing, cannot be read, or is not an ONNX file.
    """
    check_packages()
    import onnx

    path = as_path("path", path)
    check_readable(path, "an ONNX file", "export a net first, or name another file")
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's exceptions have no common class
        raise_if_of_the_machine(error)
        raise _not_onnx(path) from error
    if not (model.graph.node and model.graph.input and model.graph.output):  # some other files can be parsed, too
        raise _not_onnx(path)
    return model


def is_qonnx(model: "onnx.ModelProto") -> bool:
    """Return whether a model has operators of QONNX, which ONNX Runtime does not know."""
    return any(node.domain.startswith("qonnx") for node in model.graph.node)


def _not_onnx(path: Path) -> CourseError:
    return CourseError(f"{path} is not an ONNX file, or is damaged: name a file that `export` wrote.")


def session(path: str | Path, exact: bool = True, threads: int = 0) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load a QCDQ file once and return a function from images, as `run` takes them, to logits.

    Args:
        path: The ONNX file.
        exact: See `run`.
        threads: The number of CPU threads; 0 means all.

    Raises:
        CourseError: If the file is missing, is not an ONNX file, or is a QONNX file.
    """
    path = as_path("path", path)
    if is_qonnx(load(path)):
        raise CourseError(f"{path.name} is a QONNX file, which ONNX Runtime cannot run: export with format='qcdq'.")
    run_all = all_outputs(str(path), exact, threads)
    return lambda images: next(iter(run_all(images).values()))


def all_outputs(
    model: str | bytes, exact: bool = True, threads: int = 0
) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
    """Load a QCDQ model and return a function from images, as `run` takes them, to all outputs, by name.

    Args:
        model: The path of an ONNX file, or the content of one.
        exact: See `run`.
        threads: The number of CPU threads; 0 means all.

    Raises:
        CourseError: If ONNX Runtime cannot run the model.
    """
    check_whole("threads", threads, 0)
    import onnxruntime

    options, levels = onnxruntime.SessionOptions(), onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC if exact else levels.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    try:
        loaded = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class
        raise_if_of_the_machine(error)
        raise CourseError(f"ONNX Runtime cannot run the file ({_line(error)}): export the net again.") from error
    if len(loaded.get_inputs()) != 1:
        raise CourseError("The file has more than one input: name a file that `export` wrote.")
    (source,) = loaded.get_inputs()
    names = [node.name for node in loaded.get_outputs()]
    is_bytes, sizes = source.type == "tensor(uint8)", [size if isinstance(size, int) else 0 for size in source.shape]

    def run_all(images: torch.Tensor) -> dict[str, torch.Tensor]:
        accepted = _accepted(images, is_bytes, sizes)
        try:
            values = loaded.run(names, {source.name: accepted})
        except Exception as error:  # for example, an operator of the file needs too much memory
            raise CourseError(f"ONNX Runtime cannot run the file ({_line(error)}): export the net again.") from error
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

    return run_all


def _no_log() -> contextlib.AbstractContextManager:
    """Keep PyTorch from printing the whole graph when an export fails: C++ writes it past `redirect_stdout`."""
    return mock.patch.object(torch._C, "_jit_onnx_log", lambda *_: None, create=True)


def takes_bytes(path: str | Path) -> bool:
    """Return whether a file takes uint8 images and normalizes them itself.

    Raises:
        CourseError: If the file is missing or is not an ONNX file.
    """
    return _is_bytes(load(path).graph.input[0])


def _is_bytes(source) -> bool:
    import onnx

    return source.type.tensor_type.elem_type == onnx.TensorProto.UINT8


def _accepted(images: torch.Tensor, is_bytes: bool, sizes: Sequence[int]) -> np.ndarray:
    """Return images as an array, after comparing them with what a file takes; a size of 0 stands for any number."""
    check_type("images", images, torch.Tensor, IMAGES)
    if images.dtype != (torch.uint8 if is_bytes else torch.float32):
        wanted = (
            "uint8 images from 0 to 255, which it normalizes itself: pass the images as they are in the data set"
            if is_bytes
            else "normalized images: pass data.normalize(images), or export with preprocess=True"
        )
        raise CourseError(f"The images are {str(images.dtype).removeprefix('torch.')}, but the file takes {wanted}.")
    if images.ndim != len(sizes) or any(size not in (0, own) for size, own in zip(sizes, images.shape, strict=True)):
        shape = f"({', '.join(str(size or 'n') for size in sizes)})"
        raise CourseError(
            f"The images have the shape {tuple(images.shape)}, but the file takes {shape}: pass images of this shape, "
            f"or export the net again, with images={len(images) if images.ndim else 1} if their number is wrong."
        )
    return images.cpu().contiguous().numpy()


def _write(
    net: nn.Module, file: Path, format: str, example: torch.Tensor, remedy: str, input_name: str, fixed: bool
) -> None:
    # The older exporter stores the weights as integers in a single file. The newer one (dynamo) stores floats, in two.
    options = {"dynamo": False, "keep_initializers_as_inputs": False}
    options |= {"input_names": [input_name], "output_names": [onnx_graph.OUTPUT]}
    if not fixed:
        options["dynamic_axes"] = {input_name: {0: "batch"}, onnx_graph.OUTPUT: {0: "batch"}}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _no_log():
        warnings.simplefilter("ignore")
        from brevitas.export import export_onnx_qcdq, export_qonnx  # needs onnx, and warns

        write = export_onnx_qcdq if format == "qcdq" else export_qonnx
        try:
            write(net, args=example, export_path=str(file), **options)
        except Exception as error:  # the exporters raise almost anything for what they do not know
            raise_if_of_the_machine(error)
            raise CourseError(
                f"{spec_of(net).name} cannot be exported to {format.upper()} ({_line(error)}): {remedy}."
            ) from error


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _run_qonnx(path: str | Path, images: torch.Tensor) -> torch.Tensor:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    model = ModelWrapper(str(path)).transform(InferShapes())
    (source,), (sink,) = model.graph.input, model.graph.output
    check_type("images", images, torch.Tensor, IMAGES)
    sizes = model.get_tensor_shape(source.name)
    parts = images.split(1) if sizes[0] == 1 and images.ndim == len(sizes) else [images]
    arrays = [_accepted(part, _is_bytes(source), sizes) for part in parts]
    return torch.cat([torch.from_numpy(execute_onnx(model, {source.name: array})[sink.name]) for array in arrays])


def _has_binary(net: nn.Module) -> bool:
    quantizers = [layer.weight_quant for layer in weights.quantized_layers(net).values()]
    quantizers += [module.act_quant for module in net.modules() if hasattr(module, "act_quant")]
    return any(map(is_binary, quantizers))
