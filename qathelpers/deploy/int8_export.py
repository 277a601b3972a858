"""Export a net to an ONNX file that ONNX Runtime computes in 8-bit integers, with scales that it calibrates itself."""

import contextlib
import copy
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import torch
from torch import nn

from ..common.errors import CourseError, check_type
from ..common.files import as_path, write_atomically
from ..data.batches import normalize
from ..nets import weights
from ..nets.quantizers import bits_of
from . import conversion, onnx_export, onnx_graph

BITS = 8
FEWEST = 16  # images from which the ranges of activations can be estimated at all
REMEDY = "take the float net (PytorchNN) or an 8-bit net (Int8NN)"


def export_int8(
    net: nn.Module,
    path: str | Path,
    images: torch.Tensor,
    preprocess: bool = True,
    classes: Sequence[str] | None = None,
) -> Path:
    """Export `net` to an ONNX file whose convolutions ONNX Runtime computes in 8-bit integers (QLinearConv).

    `onnx_export.export` keeps the quantizers of the training. Where its graph leaves a float between two layers, as in
    a net with skip connections, ONNX Runtime computes these layers in floats. This function instead writes the net in
    floats, with its quantized weights, and lets ONNX Runtime quantize everything, skip connections included
    (`quantize_static`). No training step has seen this rounding, so check the accuracy of the file.

    Args:
        net: A net whose activations are floats, or have 8 bits without a sign.
        path: The file to write.
        images: Calibration images, uint8 (n, channels, h, w): some hundred training images. The ranges of the
            activations are those that occur on these images.
        preprocess: Whether the file takes uint8 images and normalizes them; otherwise it takes normalized floats.
        classes: See `onnx_export.export`.

    Returns:
        The path.

    Raises:
        CourseError: If activations have other quantizers, if the images are too few or not uint8, if a package is
            missing, or if `path` cannot be written.

    Reference:
        B. Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
        (arXiv 1712.05877).
    """
    onnx_export.check_packages()
    weights.check_net(net)
    check_type("images", images, torch.Tensor, "uint8 images, such as dataset.train_images[:256]")
    path = as_path("path", path)
    for quantizer in conversion.activation_quantizers(net):
        if bits_of(quantizer) != BITS or quantizer.is_signed or (quantizer.zero_point() != 0).any():
            raise CourseError(f"Unsigned 8-bit levels would replace the quantizers of the net's activations: {REMEDY}.")
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) < FEWEST:
        raise CourseError(
            f"The calibration needs at least {FEWEST} images, uint8 (n, channels, h, w), but got {len(images)} of "
            f"{images.dtype}: pass some hundred training images."
        )
    floats = pooled_last(in_floats(conversion.on_cpu(net)))

    def write(file: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = onnx_export.export(floats, Path(folder) / "float.onnx", preprocess=preprocess, classes=classes)
            _quantize(source, file, images if preprocess else normalize(images))

    write_atomically(path, write)
    return path


def in_floats(net: nn.Module) -> nn.Module:
    """Return a copy of `net` with plain layers, whose weights have the quantized values, and plain activations.

    A quantized ReLU becomes one that clips at the same value, but does not round.
    """
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, qnn.QuantConv2d | qnn.QuantLinear):
                setattr(parent, name, _plain(child))
            elif isinstance(child, qnn.QuantReLU):
                quantizer = child.act_quant
                highest = (2**BITS - 1) * quantizer.scale().max().item() if quantizer.is_quant_enabled else None
                setattr(parent, name, nn.ReLU() if highest is None else nn.Hardtanh(0.0, highest))
    return net


def _plain(layer: nn.Module) -> nn.Module:
    has_bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        plain = nn.Linear(layer.in_features, layer.out_features, has_bias)
    else:
        settings = (layer.stride, layer.padding, layer.dilation, layer.groups, has_bias)
        plain = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, *settings)
    plain.weight.data = weights.quantized(layer)
    if has_bias:
        plain.bias.data = layer.bias.detach().clone()
    return plain.eval()


def pooled_last(net: nn.Module) -> nn.Module:
    """Move max pooling behind the BatchNorm that follows it, and return `net`, which computes the same.

    The BatchNorm then follows a convolution, so that it can be merged into its weights. A BatchNorm with a negative
    weight has to stay behind the pooling: it turns the largest value into the smallest.
    """
    for module in net.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for i in range(len(module) - 1):
            pool, norm = module[i], module[i + 1]
            if type(pool) is nn.MaxPool2d and type(norm) is nn.BatchNorm2d and (norm.weight >= 0).all():
                module[i], module[i + 1] = norm, pool
    return net


def _quantize(source: Path, target: Path, images: torch.Tensor) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """Hands ONNX Runtime one batch of calibration images after the other."""

        def __init__(self) -> None:
            self.batches: Iterator[torch.Tensor] = iter(images.split(FEWEST))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {onnx_graph.INPUT: batch.contiguous().numpy()}

    logger, level = logging.getLogger(), logging.getLogger().level
    logger.setLevel(logging.ERROR)  # it advises to call what is called here
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            ready = Path(folder) / "ready.onnx"
            quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)  # merges BatchNorms
            nodes = onnx.load(str(ready)).graph.node
            quantize_static(
                str(ready),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[node.name for node in nodes if node.name.startswith(onnx_graph.SCOPE)],
            )
    finally:
        logger.setLevel(level)
    model, entries = onnx.load(str(target)), onnx.load(str(source)).metadata_props
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in entries})
    onnx.save(model, str(target))
