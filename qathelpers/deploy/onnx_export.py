"""Export a net to an ONNX file for other runtimes, and run that file to check that it computes the same."""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

from ..common.errors import CourseError, check_type, check_whole
from ..common.files import as_path, check_readable, write_atomically
from ..nets import weights
from ..nets.architectures import spec_of
from ..nets.quantizers import is_binary
from . import conversion

PACKAGES = ("onnx", "onnxoptimizer", "onnxscript", "onnxruntime", "qonnx")
FORMATS = ("qcdq", "qonnx")


def missing() -> list[str]:
    """List the packages that this module needs and that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def export(
    net: nn.Module,
    path: str | Path,
    format: str = "qcdq",
    images: int = 8,
    shape: tuple[int, int, int] | None = None,
) -> Path:
    """Export `net` to an ONNX file. The export works on a copy, so `net` does not change.

    After the export, the logits that the file gives for a random batch are compared with those of the net
    (`conversion.check`).

    Args:
        net: The net to export.
        path: The file to write.
        format: "qcdq" uses the standard operators QuantizeLinear, Clip and DequantizeLinear, which every runtime knows.
            "qonnx" uses the operators of QONNX, which support any number of bits and which FINN reads.
        images: The batch size; the file accepts only batches of exactly this many images.
        shape: The shape of one input image (channels, height, width); by default what the net was built for.

    Returns:
        The path.

    Raises:
        CourseError: If the format does not exist or cannot hold the net, if the file's logits differ from those of the
            net, if a package is missing, or if `path` cannot be written.

    Reference:
        A. Pappalardo et al., QONNX (arXiv 2206.07527).
    """
    if format not in FORMATS:
        raise CourseError(f"There is no format {format!r}: choose one of {', '.join(FORMATS)}.")
    if missing():
        raise CourseError(
            f"Not installed: {', '.join(missing())}. Run `pip install -e '.[deploy]'` in the course folder."
        )
    weights.check_net(net)
    path = as_path("path", path)
    if format == "qcdq" and _has_binary(net):
        raise CourseError(
            f"format='qcdq' cannot hold {spec_of(net).name}, because QCDQ has no operator for binary values: use "
            "format='qonnx', or export a ternary net."
        )
    check_whole("images", images, 1)
    expected, shape = conversion.on_cpu(net), shape or spec_of(net).image
    conversion.check_shape(expected, shape)
    remedy = "run the net in PyTorch instead"
    if not _has_binary(net):
        other = next(other for other in FORMATS if other != format)
        remedy = f"export it with format='{other}', or {remedy}"
    example = torch.randn(images, *shape, generator=torch.Generator().manual_seed(0))

    def write(file: Path) -> None:
        # A failed export leaves the exported net unusable, and copies of that net, too. So a copy of its own is used.
        _write(conversion.on_cpu(net), file, format, example, remedy)
        found = conversion.in_batches(lambda batch: run(file, batch), images)
        conversion.check(expected, found, shape, format.upper(), conversion.may_flip(net), remedy)

    write_atomically(path, write)
    return path


def run(path: str | Path, images: torch.Tensor, exact: bool = True) -> torch.Tensor:
    """Run a file that `export` wrote.

    ONNX Runtime runs QCDQ files. QONNX files are run by the package `qonnx`, one operator at a time, which is slow.

    Args:
        path: The ONNX file.
        images: Normalized images (n, channels, h, w), exactly as many as the file was exported for.
        exact: If this is False, ONNX Runtime replaces multiplications by dequantized weights with multiplications of
            8-bit integers, for which it rounds activations that the net does not quantize. True prevents this.

    Returns:
        Logits (n, classes), on the CPU.

    Raises:
        CourseError: If the file is missing or is not an ONNX file, or if the images do not have the shape or the number
            that it was exported for.
    """
    import onnx

    path = as_path("path", path)
    check_readable(path, "an ONNX file", "export a net first, or name another file")
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf's exceptions have no common class
        raise CourseError(f"{path} is not an ONNX file, or is damaged: name a file that `export` wrote.") from error
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [node.type.tensor_type.shape.dim for node in graph.input if node.name not in constants]
    _check_images(path, [tuple(size.dim_value for size in shape) for shape in inputs], images)
    if any(node.domain.startswith("qonnx") for node in graph.node):
        return _run_qonnx(path, images)
    return session(path, exact)(images)


def _check_images(path: Path, inputs: list[tuple[int, ...]], images: torch.Tensor) -> None:
    check_type("images", images, torch.Tensor, "normalized images, such as data.normalize(dataset.test_images)")
    if images.dtype != torch.float32:
        raise CourseError(f"images are {images.dtype}: pass normalized ones, data.normalize(dataset.test_images).")
    for shape in inputs:
        if len(shape) == images.ndim and all(size in (0, own) for size, own in zip(shape, images.shape, strict=True)):
            return  # a size of 0 stands for any size
    raise CourseError(
        f"{path} was exported for images {', '.join(map(str, inputs))}, but these are {tuple(images.shape)}: pass "
        f"as many images of this shape, or export the net again with images={len(images)}."
    )


def session(path: str | Path, exact: bool = True, threads: int = 0) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load a QCDQ file once and return a function from normalized images (n, channels, h, w) to logits.

    Args:
        path: The ONNX file.
        exact: See `run`.
        threads: The number of CPU threads; 0 means all.
    """
    run_all = all_outputs(str(path), exact, threads)
    return lambda images: next(iter(run_all(images).values()))


def all_outputs(
    model: str | bytes, exact: bool = True, threads: int = 0
) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
    """Load a QCDQ model and return a function from normalized images (n, channels, h, w) to all outputs, by name.

    Args:
        model: The path of an ONNX file, or the content of one.
        exact: See `run`.
        threads: The number of CPU threads; 0 means all.
    """
    import onnxruntime

    options, levels = onnxruntime.SessionOptions(), onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC if exact else levels.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    loaded = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (source,) = (node.name for node in loaded.get_inputs())
    names = [node.name for node in loaded.get_outputs()]

    def run_all(images: torch.Tensor) -> dict[str, torch.Tensor]:
        values = loaded.run(names, {source: _numpy(images)})
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

    return run_all


def _no_log() -> contextlib.AbstractContextManager:
    """Keep PyTorch from printing the whole graph when an export fails: C++ writes it past `redirect_stdout`."""
    return mock.patch.object(torch._C, "_jit_onnx_log", lambda *_: None, create=True)


def _write(net: nn.Module, file: Path, format: str, example: torch.Tensor, remedy: str) -> None:
    # The older exporter stores the weights as integers in a single file. The newer one (dynamo) stores floats, in two.
    options = {"dynamo": False, "keep_initializers_as_inputs": False}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _no_log():
        warnings.simplefilter("ignore")
        from brevitas.export import export_onnx_qcdq, export_qonnx  # needs onnx, and warns

        write = export_onnx_qcdq if format == "qcdq" else export_qonnx
        try:
            write(net, args=example, export_path=str(file), **options)
        except OSError:
            raise
        except Exception as error:  # the exporters raise almost anything for what they do not know
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise CourseError(
                f"{spec_of(net).name} cannot be exported to {format.upper()} ({reason}): {remedy}."
            ) from error


def _run_qonnx(path: str | Path, images: torch.Tensor) -> torch.Tensor:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    model = ModelWrapper(str(path)).transform(InferShapes())
    (source,), (sink,) = model.graph.input, model.graph.output
    return torch.from_numpy(execute_onnx(model, {source.name: _numpy(images)})[sink.name])


def _numpy(images: torch.Tensor) -> np.ndarray:
    return images.cpu().contiguous().numpy()


def _has_binary(net: nn.Module) -> bool:
    quantizers = [layer.weight_quant for layer in weights.quantized_layers(net).values()]
    quantizers += [module.act_quant for module in net.modules() if hasattr(module, "act_quant")]
    return any(map(is_binary, quantizers))
