"""Export a net to an ONNX file for other runtimes, and run that file to check that it computes the same."""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..common.errors import CourseError
from ..common.files import write_atomically
from ..nets import packing, weights
from ..nets.architectures import build, spec_of
from ..nets.quantizers import is_binary

PACKAGES = ("onnx", "onnxoptimizer", "onnxscript", "onnxruntime", "qonnx")
FORMATS = ("qcdq", "qonnx")


def missing() -> list[str]:
    """List the packages that this module needs and that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def export(net: nn.Module, path: str | Path, format: str = "qcdq", images: int = 8) -> Path:
    """Export `net` to an ONNX file. The export works on a copy, so `net` does not change.

    Args:
        net: A net made by `nets.build`.
        path: The file to write.
        format: "qcdq" uses the standard operators QuantizeLinear, Clip and DequantizeLinear, which every runtime knows.
            "qonnx" uses the operators of QONNX, which support any number of bits and which FINN reads.
        images: The batch size; the file accepts only batches of exactly this many images (n, 3, 32, 32).

    Returns:
        The path.

    Raises:
        CourseError: If the format does not exist or cannot hold the net, if a package is missing, if the net was not
            made by `nets.build`, or if `path` cannot be written.

    Reference:
        A. Pappalardo et al., QONNX (arXiv 2206.07527).
    """
    if format not in FORMATS:
        raise CourseError(f"There is no format {format!r}: choose one of {', '.join(FORMATS)}.")
    if missing():
        raise CourseError(
            f"Not installed: {', '.join(missing())}. Run `pip install -e '.[deploy]'` in the course folder."
        )
    if format == "qcdq" and _has_binary(net):
        raise CourseError(
            f"format='qcdq' cannot hold {spec_of(net).name}, because QCDQ has no operator for binary values: use "
            "format='qonnx', or export a ternary net."
        )
    copy, example = _copy(net), torch.randn(images, 3, 32, 32)
    # The older exporter stores the weights as integers in a single file. The newer one (dynamo) stores floats, in two.
    options = {"dynamo": False, "keep_initializers_as_inputs": False}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from brevitas.export import export_onnx_qcdq, export_qonnx  # needs onnx, and warns

        write = export_onnx_qcdq if format == "qcdq" else export_qonnx
        write_atomically(Path(path), lambda file: write(copy, args=example, export_path=str(file), **options))
    return Path(path)


def run(path: str | Path, images: torch.Tensor, exact: bool = True) -> torch.Tensor:
    """Run a file that `export` wrote.

    ONNX Runtime runs QCDQ files. QONNX files are run by the package `qonnx`, one operator at a time, which is slow.

    Args:
        path: The ONNX file.
        images: Normalized images (n, 3, 32, 32), exactly as many as the file was exported for.
        exact: If this is False, ONNX Runtime replaces multiplications by dequantized weights with multiplications of
            8-bit integers, for which it rounds activations that the net does not quantize. True prevents this.

    Returns:
        Logits (n, 10), on the CPU.
    """
    import onnx

    nodes = onnx.load(str(path)).graph.node
    if any(node.domain.startswith("qonnx") for node in nodes):
        return _run_qonnx(path, images)
    return session(path, exact)(images)


def session(path: str | Path, exact: bool = True, threads: int = 0) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load a QCDQ file once and return a function from normalized images (n, 3, 32, 32) to logits (n, 10).

    Args:
        path: The ONNX file.
        exact: See `run`.
        threads: The number of CPU threads; 0 means all.
    """
    import onnxruntime

    options, levels = onnxruntime.SessionOptions(), onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC if exact else levels.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    model = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (name,) = (node.name for node in model.get_inputs())
    return lambda images: torch.from_numpy(model.run(None, {name: _numpy(images)})[0])


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


def _copy(net: nn.Module) -> nn.Module:
    # A failed export leaves the exported net unusable, and deep copies of that net are unusable, too. A new net works.
    spec = spec_of(net)
    if spec.seed is None:
        raise CourseError(
            f"{spec.name} was not made by nets.build, so it cannot be exported: make the net with nets.build."
        )
    copy = build(spec.scheme, spec.arch)
    copy.load_state_dict(packing.unpack_net(copy, *packing.pack_net(net)))
    return copy.eval()
