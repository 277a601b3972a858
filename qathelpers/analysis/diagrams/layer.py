"""Diagrams of a quantized layer."""

from ..figure import Figure
from .canvas import arrow, box, canvas, label


def layer_under_qat() -> Figure:
    """Draw one layer under quantization-aware training: the forward pass and the gradient's way back."""
    figure, axes = canvas(8.6, 2.9)
    box(axes, 1.1, 2.0, "latent weight $w$\n(float)", 1.6, 0.7)
    box(axes, 3.7, 2.0, "quantizer\nround and clip", 1.6, 0.7, "quantized")
    box(axes, 6.2, 2.0, "convolution", 1.4, 0.7)
    box(axes, 6.2, 0.6, "optimizer", 1.4, 0.55)
    label(axes, 6.2, 2.75, "input $x$")
    arrow(axes, (6.2, 2.65), (6.2, 2.35))
    arrow(axes, (1.9, 2.1), (2.9, 2.1), "$w$")
    arrow(axes, (4.5, 2.1), (5.5, 2.1), "$Q(w)$")
    arrow(axes, (6.9, 2.1), (8.1, 2.1), "output")
    red = "#D55E00"
    arrow(axes, (8.1, 1.85), (6.9, 1.85), colour=red, dashed=True)
    arrow(axes, (5.5, 1.85), (4.5, 1.85), colour=red, dashed=True)
    arrow(axes, (2.9, 1.85), (1.9, 1.85), colour=red, dashed=True)
    label(axes, 3.7, 1.45, "gradient: passed on as if $Q(w) = w$", colour=red)
    arrow(axes, (5.5, 0.6), (1.1, 1.6), "small step", bend=-0.25)
    return figure.with_alt(
        "One layer under quantization-aware training. Forward: the latent float weight w goes through the quantizer, "
        "and the convolution computes with Q(w). Backward: the gradient passes the quantizer unchanged, and the "
        "optimizer changes the latent weight by a small step."
    )
