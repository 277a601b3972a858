"""What the converters share: known layers, padding, and the comparison of a converted net with the original one."""

import copy
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from brevitas.proxy.runtime_quant import ActQuantProxyFromInjectorBase
from torch import nn

from ..common import errors
from ..common.errors import CourseError, raise_if_of_the_machine
from ..data.batches import STATISTICS, normalize
from ..nets import weights
from ..nets.architectures import NetSpec, spec_of
from ..nets.convnet import ConvNet
from ..nets.lenet import LeNet
from ..nets.stem import DCTStem

IMAGES, SEED = 16, 0  # of the random batch on which logits are compared
TOLERANCE = 1e-3  # of the spread of the logits over the batch
ROUNDING = 1e-4  # of the largest logit
MAX_ROUNDING = 1e-3  # the largest difference between fp32 and fp64 that is taken for a rounding error
FEWEST = 2  # images that must agree in any case; a wrong conversion agrees for none
GIVE_SHAPE = "pass the shape of your images as `shape`"
METHODS = ("forward", "forward_impl", "inner_forward_impl", "_conv_forward")  # what a layer computes


def on_cpu(net: nn.Module) -> nn.Module:
    """Return a copy of `net` in eval mode, in fp32, on the CPU.

    Raises:
        CourseError: If `net` is not a net, or has lazy layers.
    """
    weights.check_net(net)
    return copy.deepcopy(net).cpu().float().eval()


class GlobalMax(nn.Module):
    """Global max pooling that torch.export turns into `amax`, an operator of the core set that every backend has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maximum of each channel, (n, channels, 1, 1), of features (n, channels, h, w)."""
        return x.amax((2, 3), keepdim=True)


class PlainStem(nn.Module):
    """A `DCTStem` as one convolution, whose filters are negated and repeated.

    The filters are joined in the forward pass: PyTorch's exporter would merge the BatchNorm that follows into filters
    that are ready, and the file would lack the output of the stem, which `compare_layers` looks for.

    Args:
        stem: The stem to replace.
    """

    def __init__(self, stem: DCTStem) -> None:
        super().__init__()
        self.stride, self.padding, self.repeats = stem.stride, stem.padding, stem.repeats
        self.register_buffer("filters", stem.filters.clone())
        self.register_buffer("negated", -stem.filters)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return responses (n, channels, h', w') for images (n, inputs, h, w)."""
        filters = torch.cat([self.filters, self.negated] * self.repeats)
        return F.conv2d(images, filters, stride=self.stride, padding=self.padding)


def portable(net: nn.Module) -> nn.Module:
    """Return a copy of `net` for `torch.export`, for example for ExecuTorch: the same function of simpler operators.

    The stem becomes one convolution, and global max pooling becomes `amax`. The copy is in eval mode, in fp32 and on
    the CPU. It is not for training: where several values are the maximum, `amax` has another gradient.

    Args:
        net: The net to copy.
    """
    net = with_plain_stem(on_cpu(net))
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            is_global = type(child) is nn.AdaptiveMaxPool2d and child.output_size in (1, (1, 1), [1, 1])
            if is_global and not child.return_indices and not differs_from(child, nn.AdaptiveMaxPool2d):
                setattr(parent, name, GlobalMax())
    return net


def with_plain_stem(net: nn.Module) -> nn.Module:
    """Replace each `DCTStem` of `net` by one convolution, whose filters are negated and repeated; return `net`.

    `DCTStem` repeats its responses instead, which is faster in training. An exported file would then have an operator
    with the same input twice, which the tools of FINN and hls4ml cannot handle.
    """
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, DCTStem) and not differs_from(child, DCTStem):
                setattr(parent, name, PlainStem(child))
    return PlainStem(net) if type(net) is DCTStem else net


def image_shape(net: nn.Module, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the shape of one image (channels, height, width): `shape` or, if it is None, what `net` was built for.

    Raises:
        CourseError: If `shape` is not the shape of an image.
    """
    shape = spec_of(net).image if shape is None else shape
    errors.check_shape("shape", shape)
    return tuple(shape)


def takes_bytes(net: nn.Module, shape: tuple[int, ...], preprocess: bool | None) -> bool:
    """Return whether the file of `net` takes images as bytes and normalizes them itself.

    Args:
        net: The net.
        shape: The shape of one image (channels, height, width).
        preprocess: What the caller asked for; None stands for yes if `build` made the net and for no otherwise,
            because nobody knows how another net expects its images.

    Raises:
        CourseError: If `preprocess` is True and the course cannot normalize images of this shape.
    """
    built = type(net) in (ConvNet, LeNet) or isinstance(getattr(net, "spec", None), NetSpec)
    wanted = built if preprocess is None else preprocess
    if not wanted:
        return False
    if len(shape) != 3 or shape[0] not in STATISTICS or min(shape[1:]) < 2:
        raise CourseError(
            f"Images of the shape {tuple(shape)} cannot be normalized inside the file: pass preprocess=False, and "
            "normalize the images before the file gets them."
        )
    return True


def random_bytes(shape: tuple[int, ...]) -> torch.Tensor:
    """Return the random batch of uint8 images on which logits are compared."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(0, 256, (IMAGES, *shape), dtype=torch.uint8, generator=generator)


def check_bytes(
    net: nn.Module,
    run: Callable[[torch.Tensor], torch.Tensor],
    shape: tuple[int, ...],
    kind: str,
    may_flip: bool,
    remedy: str = "export the net to ONNX instead",
) -> None:
    """Compare logits as `check` does, for a conversion that takes uint8 images and normalizes them itself.

    Args:
        net: As for `check`.
        run: The conversion: from uint8 images (n, *shape) to logits.
        shape: As for `check`.
        kind: As for `check`.
        may_flip: As for `check`.
        remedy: As for `check`.

    Raises:
        CourseError: In the cases that `check` names.
    """
    images = random_bytes(shape)
    check(net, lambda _: run(images), shape, kind, may_flip, remedy, normalize(images))


def names(net: nn.Module) -> dict[nn.Module, str]:
    """Return how messages call each module of `net`: its name and its class."""
    return {
        module: f"{name} ({type(module).__name__})" if name else type(module).__name__
        for name, module in net.named_modules()
    }


def differs_from(module: nn.Module, known: type) -> str:
    """Return how `module` computes something else than the class `known` does, or "" if it computes the same."""
    if "forward" in vars(module):
        return "its forward was replaced"
    for method in METHODS:
        if getattr(type(module), method, None) is not getattr(known, method, None):
            return f"its {method} is not that of {known.__name__}"
    return ""


def unsupported(layer: nn.Module) -> str:
    """Return the first setting of a convolution or linear layer that no converter supports, or "" if there is none."""
    for quantizer in ("input_quant", "output_quant", "bias_quant"):
        if hasattr(layer, quantizer) and getattr(layer, quantizer).is_quant_enabled:
            return f"{quantizer} is not supported"
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return f"padding_mode={layer.padding_mode!r} is not supported"
    if not weights.quantized(layer).isfinite().all():
        return "its weights are NaN or infinite"
    return ""


def pads(layer: nn.Conv2d, height: int, width: int) -> tuple[list[int], list[int]]:
    """Return how many zeros `layer` adds to an image: (top, left) and (bottom, right).

    Args:
        layer: A convolution whose padding mode is "zeros".
        height: Height of its input in pixels.
        width: Width of its input in pixels.
    """
    if getattr(layer, "is_same_padded_strided", False):  # Brevitas' extension of "same" to strides above 1
        settings = zip((height, width), layer.kernel_size, layer.stride, layer.dilation, strict=True)
        totals = [
            max((math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            for size, kernel, stride, dilation in settings
        ]
    elif layer.padding == "same":
        totals = [(kernel - 1) * dilation for kernel, dilation in zip(layer.kernel_size, layer.dilation, strict=True)]
    else:
        before = [0, 0] if layer.padding == "valid" else list(layer.padding)
        return before, before
    return [total // 2 for total in totals], [total - total // 2 for total in totals]


def class_names(net: nn.Module, classes: Sequence[str] | None, outputs: int | None) -> tuple[str, ...] | None:
    """Return the names of the classes of `net`, or None if nobody knows them.

    Args:
        net: The net; a recorded one knows the classes of its data set.
        classes: What the caller passed.
        outputs: The number of logits, if it is known.

    Raises:
        CourseError: If the caller passed more or fewer names than there are logits.
    """
    names = tuple(getattr(net, "class_names", ()) if classes is None else classes)
    if classes is not None and outputs is not None and len(names) != outputs:
        raise CourseError(f"The net has {outputs} logits, but classes has {len(names)} names: pass one per logit.")
    return names if len(names) == outputs else None


def check_shape(net: nn.Module, shape: tuple[int, ...]) -> int | None:
    """Check that `net`, in eval mode, accepts images of this shape; return the number of its logits if it has any.

    Raises:
        CourseError: If it does not.
    """
    errors.check_shape("shape", shape)
    failed = f"The net does not accept images of the shape {tuple(shape)}"
    output = _output(net, torch.zeros(1, *shape), failed, GIVE_SHAPE)
    output = getattr(output, "value", output)
    return output.shape[1] if isinstance(output, torch.Tensor) and output.ndim == 2 else None


def in_batches(run: Callable[[torch.Tensor], torch.Tensor], batch: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function for any number of images, given one that accepts exactly `batch` images."""

    def run_all(images: torch.Tensor) -> torch.Tensor:
        full = -(-len(images) // batch) * batch
        repeated = images[torch.arange(full) % len(images)]
        return torch.cat([run(part) for part in repeated.split(batch)])[: len(images)]

    return run_all


def check(
    net: nn.Module,
    run: Callable[[torch.Tensor], torch.Tensor],
    shape: tuple[int, ...],
    kind: str,
    may_flip: bool,
    remedy: str = "export the net to ONNX instead",
    images: torch.Tensor | None = None,
) -> None:
    """Compare the logits of `net` with those of its conversion on one batch of random images.

    The logits of an image agree if they differ by at most `TOLERANCE` times the spread of the logits over the batch,
    plus `ROUNDING` times the largest logit. All images have to agree.

    Float sums depend on the order of their terms, however, and quantizers amplify this: a sum close to a threshold may
    be rounded to either side, which changes the logits of the image. If activations are quantized, only half of the
    images have to agree. If too few agree, the logits are compared with those that the net computes in fp64, and the
    tolerance grows by ten times the difference between the net's own logits in fp32 and in fp64, by at most
    `MAX_ROUNDING`. In wide nets with 8-bit activations, more than half of the images may have such a sum. For each
    image whose logits from `net` differ between fp32 and fp64, the number of images that have to agree decreases by
    one, down to `FEWEST`.

    Args:
        net: The net in eval mode, in fp32, on the CPU.
        run: The conversion: from images (n, *shape) to logits.
        shape: The shape of one image.
        kind: What messages call the conversion.
        may_flip: Whether activations are quantized.
        remedy: What the reader can do if the logits differ.
        images: The batch (n, *shape); by default numbers from a normal distribution.

    Raises:
        CourseError: If the logits differ, or if either net fails on images of this shape.
    """
    errors.check_shape("shape", shape)
    if images is None:
        images = torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(SEED))
    expected = _logits(net, images, f"The net does not accept images of the shape {tuple(shape)}")
    if not expected.isfinite().all():
        raise CourseError("The net's logits are NaN or infinite: train it with a smaller learning rate.")
    logits = _logits(run, images, f"The {kind} conversion of the net fails", remedy)
    if logits.shape != expected.shape:
        raise CourseError(f"The {kind} conversion returns {tuple(logits.shape)}, the net {tuple(expected.shape)}.")
    spread = (expected - expected.mean(0)).abs().max()
    limit = TOLERANCE * spread + ROUNDING * expected.abs().max()
    needed = (len(images) + 1) // 2 if may_flip else len(images)
    gaps = _gaps(logits, expected)
    gap = _smallest(gaps, needed)
    if not gap <= limit:  # also if it is NaN
        exact = _in_fp64(net, images)
        gaps, own = torch.minimum(gaps, _gaps(logits, exact)), _gaps(expected, exact)
        limit += min(10 * _smallest(own, needed), MAX_ROUNDING)
        if may_flip:
            needed = max(min(FEWEST, len(images)), needed - int((own > limit).sum()))
        gap = _smallest(gaps, needed)
    if not gap <= limit:
        raise CourseError(
            f"The {kind} conversion does not compute what the net computes: on random images, the logits differ by "
            f"{gap:.2g} (allowed: {limit:.2g}). The net has something that the converter does not know, such as a "
            f"hook: {remedy}."
        )


def may_flip(net: nn.Module) -> bool:
    """Return whether the net quantizes activations, so that rounding may move a value across a threshold."""
    return bool(activation_quantizers(net))


def activation_quantizers(net: nn.Module) -> list[nn.Module]:
    """Return the quantizers of activations in `net` that are switched on."""
    return [m for m in net.modules() if isinstance(m, ActQuantProxyFromInjectorBase) and m.is_quant_enabled]


def _smallest(gaps: torch.Tensor, count: int) -> float:
    """Return the largest of the `count` smallest gaps; NaN if any gap is NaN."""
    return float("nan") if gaps.isnan().any() else float(gaps.sort().values[count - 1])


def _gaps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the largest difference of the logits of each image."""
    return (a - b).abs().flatten(1).amax(1)


@torch.no_grad()
def _output(run: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, failed: str, remedy: str) -> object:
    try:
        return run(images)
    except CourseError:
        raise
    except Exception as error:
        raise_if_of_the_machine(error)
        reason = str(error).strip().partition("\n")[0]
        raise CourseError(f"{failed} ({reason}): {remedy}.") from error


@torch.no_grad()
def _logits(
    run: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    failed: str,
    remedy: str = GIVE_SHAPE,
) -> torch.Tensor:
    logits = _output(run, images, failed, remedy)
    logits = getattr(logits, "value", logits)
    if not isinstance(logits, torch.Tensor) or logits.ndim == 0 or len(logits) != len(images):
        raise CourseError("The net must return one tensor with the logits of each image; wrap it in a net that does.")
    return logits.float()


@torch.no_grad()
def _in_fp64(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the logits of `net` in fp64, with the weights that it has in fp32.

    Sums of binary weights are exact then. In an untrained net with binary activations, many of these sums are exactly
    0, the threshold of the sign: in fp32, rounding decides the sign of each of them.
    """
    exact = copy.deepcopy(net)
    for layer in weights.quantized_layers(exact).values():
        weight = layer.quant_weight()
        if isinstance(weight, tuple):  # Brevitas' QuantTensor is a named tuple
            weight = weight.set(value=weight.value.double(), scale=weight.scale.double())
        layer.quant_weight = lambda *_, _weight=weight, **__: _weight
    try:
        return _logits(exact.double(), images.double(), "")
    except CourseError:  # a net that casts to fp32 itself
        return _logits(net, images, "")
