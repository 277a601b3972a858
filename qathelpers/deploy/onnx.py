"""Write a net as an ONNX file, for other runtimes, and see that it computes the same there."""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from .. import nets, packing, weights
from ..errors import CourseError
from ..files import write_atomically

PACKAGES = ("onnx", "onnxoptimizer", "onnxscript", "onnxruntime", "qonnx")
FORMATS = ("qcdq", "qonnx")


def missing() -> list[str]:
    """Return which of the packages that this module needs are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def export(net: nn.Module, path: str | Path, format: str = "qcdq", images: int = 8) -> Path:
    """Write `net` to `path`, for batches of `images` images (n, 3, 32, 32), and return the path.

    "qcdq" uses ONNX's own operators (QuantizeLinear, Clip, DequantizeLinear), which every runtime knows; "qonnx" those
    of QONNX, which hold any number of bits and which FINN reads. What is exported is a copy: `net` stays as it is.
    Raises CourseError when the format cannot hold the net, a package is missing, or `path` cannot be written.
    Source: A. Pappalardo et al., QONNX (arXiv 2206.07527).
    """
    if format not in FORMATS:
        raise CourseError(f"There is no format {format!r}: choose one of {', '.join(FORMATS)}.")
    if missing():
        raise CourseError(f"{', '.join(missing())} not installed: run `pip install -e '.[deploy]'` in the course.")
    if format == "qcdq" and _has_binary(net):
        raise CourseError(
            f"QCDQ has no operator for two levels, so Brevitas cannot write {net.name} that way: use "
            "format='qonnx', or export its ternary twin."
        )
    copy, example = _copy(net), torch.randn(images, 3, 32, 32)
    # The older exporter: it stores integers, in one file; the newer one floats, in two.
    options = {"dynamo": False, "keep_initializers_as_inputs": False}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from brevitas.export import export_onnx_qcdq, export_qonnx  # here, because it needs onnx, and warns

        write = export_onnx_qcdq if format == "qcdq" else export_qonnx
        write_atomically(Path(path), lambda file: write(copy, args=example, export_path=str(file), **options))
    return Path(path)


def run(path: str | Path, images: torch.Tensor, exact: bool = True) -> torch.Tensor:
    """Return the logits (n, 10) that a file of `export` gives for as many normalised images as it was made for.

    ONNX Runtime reads QCDQ; QONNX is read by its own package, operator by operator, which is slow. Left to itself, ONNX
    Runtime replaces products with dequantized weights by products of 8-bit integers, and rounds the activations for
    that. `exact` forbids it.
    """
    import onnx

    nodes = onnx.load(str(path)).graph.node
    if any(node.domain.startswith("qonnx") for node in nodes):
        return _run_qonnx(path, images)
    return session(path, exact)(images)


def session(path: str | Path, exact: bool = True, threads: int = 0) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that does what `run` does, as often as you like; `threads` 0: all."""
    import onnxruntime

    options, levels = onnxruntime.SessionOptions(), onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC if exact else levels.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    model = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (name,) = (node.name for node in model.get_inputs())
    return lambda images: torch.from_numpy(model.run(None, {name: images.contiguous().numpy()})[0])


def _run_qonnx(path: str | Path, images: torch.Tensor) -> torch.Tensor:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    model = ModelWrapper(str(path)).transform(InferShapes())
    (source,), (sink,) = model.graph.input, model.graph.output
    return torch.from_numpy(execute_onnx(model, {source.name: images.contiguous().numpy()})[sink.name])


def _has_binary(net: nn.Module) -> bool:
    quantizers = [layer.weight_quant for layer in weights.quantized_layers(net).values()]
    quantizers += [module.act_quant for module in net.modules() if hasattr(module, "act_quant")]
    return any(quantizer.is_quant_enabled and int(quantizer.bit_width()) == 1 for quantizer in quantizers)


def _copy(net: nn.Module) -> nn.Module:
    # Built anew, because an export that fails leaves a net of Brevitas unusable, and copies of it too.
    copy = nets.build(net.name, net.arch)
    copy.load_state_dict(packing.unpack_net(copy, *packing.pack_net(net)))
    return copy.eval()
