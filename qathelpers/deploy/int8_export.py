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
from ..nets.architectures import NetSpec
from ..nets.quantizers import bits_of
from . import conversion, onnx_export, onnx_graph

BITS = 8
FEWEST = 16  # images from which the ranges of activations can be estimated at all
PRECISION = "The net is computed in 8 bits, with ranges from calibration, so about 1 to 5 % of the predictions differ."
REMEDY_ONNX = "export the net with onnx_export.export"
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
        CourseError: If activations have other quantizers, if a layer has a hook or a setting that plain layers do not
            have (the message names it), if the images are too few, not uint8, or of another shape than the net takes,
            if a package is missing, or if `path` cannot be written.

    Reference:
        B. Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
        (arXiv 1712.05877).
    """
    onnx_export.check_packages()
    weights.check_net(net)
    check_type("images", images, torch.Tensor, "uint8 images, such as dataset.train_images[:256]")
    path = as_path("path", path)
    check_type("preprocess", preprocess, bool, "True or False")
    _check_images(net, images)
    for quantizer in conversion.activation_quantizers(net):
        if bits_of(quantizer) != BITS or quantizer.is_signed or (quantizer.zero_point() != 0).any():
            raise CourseError(f"Unsigned 8-bit levels would replace the quantizers of the net's activations: {REMEDY}.")
    images, shape, net = images.cpu(), tuple(images.shape[1:]), conversion.on_cpu(net)
    conversion.check_shape(net, shape)
    _check_layers(net)
    plain = pooled_last(in_floats(net, activations=False))
    some = normalize(images[: conversion.IMAGES])
    conversion.check(net, plain, shape, "float", conversion.may_flip(net), REMEDY_ONNX, some)
    floats = pooled_last(in_floats(net))

    def write(file: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "float.onnx"
            onnx_export.export(floats, source, shape=shape, preprocess=preprocess, classes=classes)
            _quantize(source, file, images if preprocess else normalize(images))

    write_atomically(path, write)
    return path


def _check_images(net: nn.Module, images: torch.Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) < FEWEST:
        raise CourseError(
            f"The calibration needs at least {FEWEST} images, uint8 (n, channels, h, w), but got {images.dtype} of the "
            f"shape {tuple(images.shape)}: pass some hundred training images."
        )
    spec, found = getattr(net, "spec", None), tuple(images.shape[1:])
    if isinstance(spec, NetSpec) and found != tuple(spec.image):
        raise CourseError(
            f"The calibration images have the shape {found}, but the net was built for {tuple(spec.image)}: pass "
            "images like those that it was trained on."
        )


def _check_layers(net: nn.Module) -> None:
    """Check that `in_floats` knows everything that the modules of `net` do.

    Raises:
        CourseError: If it does not; the message names the module.
    """
    names = conversion.names(net)
    for module in net.modules():
        reason = "it has a hook" if module._forward_hooks or module._forward_pre_hooks else ""
        if isinstance(module, qnn.QuantConv2d | qnn.QuantLinear):
            known = qnn.QuantConv2d if isinstance(module, nn.Conv2d) else qnn.QuantLinear
            reason = reason or conversion.differs_from(module, known) or conversion.unsupported(module)
            if getattr(module, "is_same_padded_strided", False):
                reason = reason or "padding='same' with a stride is not supported"
        elif isinstance(module, qnn.QuantReLU):
            reason = reason or conversion.differs_from(module, qnn.QuantReLU) or _differs_from_clipping(module)
        if reason:
            raise CourseError(f"{names[module]} cannot be exported in 8 bits: {reason}. Instead, {REMEDY_ONNX}.")


@torch.no_grad()
def _differs_from_clipping(relu: qnn.QuantReLU) -> str:
    """Return how a quantized ReLU differs from one that clips at its highest value, apart from rounding, or ""."""
    quantizer = relu.act_quant
    if relu.input_quant.is_quant_enabled:
        return "input_quant is not supported"
    if not quantizer.is_quant_enabled:
        return ""
    if quantizer.scale().numel() != 1:
        return "one scale per channel is not supported"
    scale, plain = quantizer.scale().item(), _clipping(relu)
    values = scale * torch.linspace(-(2**BITS), 2 ** (BITS + 1), 4097).view(1, 1, 1, -1)
    output = relu(values)
    gap = (getattr(output, "value", output) - plain(values)).abs().max().item()
    return "" if gap < 0.51 * scale else "its levels are not 0 to 255 times its scale"


def in_floats(net: nn.Module, activations: bool = True) -> nn.Module:
    """Return a copy of `net` with plain layers, whose weights have the quantized values, and plain activations.

    A quantized ReLU becomes one that clips at the same value, but does not round.

    Args:
        net: The net.
        activations: Whether to replace quantized activations, too.
    """
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, qnn.QuantConv2d | qnn.QuantLinear):
                setattr(parent, name, _plain(child))
            elif activations and isinstance(child, qnn.QuantReLU):
                setattr(parent, name, _clipping(child))
    return net


def _clipping(relu: qnn.QuantReLU) -> nn.Module:
    quantizer = relu.act_quant
    return nn.Hardtanh(0.0, (2**BITS - 1) * quantizer.scale().item()) if quantizer.is_quant_enabled else nn.ReLU()


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
        if not isinstance(module, nn.Sequential) or conversion.differs_from(module, nn.Sequential):
            continue
        for i in range(len(module) - 1):
            pool, norm = module[i], module[i + 1]
            if _is_plain_pool(pool) and _keeps_order(norm):
                module[i], module[i + 1] = norm, pool
    return net


def _is_plain_pool(module: nn.Module) -> bool:
    is_pool = type(module) is nn.MaxPool2d and not conversion.differs_from(module, nn.MaxPool2d)
    return is_pool and not module.return_indices


def _keeps_order(module: nn.Module) -> bool:
    """Return whether `module` is a BatchNorm that maps larger values of a channel to larger values."""
    if type(module) is not nn.BatchNorm2d or conversion.differs_from(module, nn.BatchNorm2d):
        return False
    has_statistics = module.running_mean is not None  # otherwise, it depends on all values that it gets
    return has_statistics and (module.weight is None or bool((module.weight >= 0).all()))


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
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in entries} | {"precision": PRECISION})
    onnx.save(model, str(target))
