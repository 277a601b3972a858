"""Diagrams of the course's residual net and of its fixed stem."""

import torch
from torch import nn

from ...nets.convnet import ConvNet
from ..figure import GREY, Figure, new
from .canvas import arrow, box, canvas, label


def residual_net(net: ConvNet) -> Figure:
    """Draw a `ConvNet`: its fixed stem, its blocks with their skip connections, and its head.

    Boxes of layers with trained weights, which the low-bit nets quantize, are blue.

    Args:
        net: The net; numbers of channels are read from it.
    """
    figure, axes = canvas(9.2, 2.6)
    y = 1.25
    label(axes, 0.35, y, "image\n3 x 32 x 32")
    box(axes, 1.5, y, f"stem, fixed\n{net.stem[0].channels} channels", 1.15, 0.75, "fixed")
    arrow(axes, (0.8, y), (0.92, y))
    x = 2.08
    described = []
    for block in net.blocks:
        widen, refine = (next(m for m in part if isinstance(m, nn.Conv2d)) for part in (block.widen, block.refine))
        arrow(axes, (x, y), (x + 0.12, y))
        box(axes, x + 0.56, y, f"ReLU\n3 x 3 conv\n{widen.out_channels} channels\npool, BN", 0.86, 0.95, "quantized")
        arrow(axes, (x + 0.99, y), (x + 1.14, y))
        box(axes, x + 1.57, y, f"ReLU\n3 x 3 conv\n{refine.out_channels} channels\nBN", 0.86, 0.95, "quantized")
        box(axes, x + 2.17, y, "+", 0.22, 0.22)
        arrow(axes, (x + 2.0, y), (x + 2.06, y))
        arrow(axes, (x + 1.07, y + 0.02), (x + 2.17, y + 0.13), bend=-1.25)
        described.append(f"{widen.out_channels} and {refine.out_channels}")
        x += 2.28
    return _head(figure, axes, net, x, y, described)


def _head(figure: Figure, axes, net: ConvNet, x: float, y: float, described: list[str]) -> Figure:
    axes.set_xlim(0, x + 1.75)
    figure.set_size_inches((x + 1.75) * 0.92, 2.4)
    linear = next(m for m in net.head if isinstance(m, nn.Linear))
    arrow(axes, (x, y), (x + 0.12, y))
    box(axes, x + 0.6, y, "max pool\nReLU, linear\nBN", 0.94, 0.8, "quantized")
    arrow(axes, (x + 1.07, y), (x + 1.2, y))
    label(axes, x + 1.48, y, f"{linear.out_features}\nlogits")
    label(axes, 4.9, 0.35, "blue: trained weights, quantized in the low-bit nets      arcs: skip connections")
    return figure.with_alt(
        f"The residual net: a fixed stem with {net.stem[0].channels} channels; {len(described)} blocks of two 3 x 3 "
        f"convolutions with {', then '.join(described)} channels, each with a skip connection that adds the output of "
        f"the first convolution to that of the second; max pooling and a linear layer with {linear.out_features} "
        "logits. All convolutions and the linear layer are trained and quantized."
    )


def stem_filters(filters: torch.Tensor, columns: int = 8) -> Figure:
    """Draw the fixed filters of a stem as small colour pictures.

    Args:
        filters: The filters (n, channels, height, width).
        columns: Number of pictures per row.
    """
    rows = -(-len(filters) // columns)
    figure, grid = new(0.85 * columns, 0.85 * rows + 0.1, rows, columns, squeeze=False)
    for axes in grid.flat[len(filters) :]:
        axes.remove()
    for axes, one in zip(figure.axes, filters, strict=True):
        shown = one.expand(3, -1, -1) if len(one) == 1 else one
        axes.imshow((0.5 + 0.5 * shown / shown.abs().max()).permute(1, 2, 0).numpy())
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(True)  # or a uniformly white filter would not be seen
    return figure.with_alt(
        f"The {len(filters)} fixed filters of the stem, {filters.shape[-1]} x {filters.shape[-1]} pixels each: one "
        "uniform brightness, then brightness that changes across the patch more and more often, and slow changes of "
        "colour."
    )


def mark(figure: Figure, x: float, y: float, text: str, offset: tuple[float, float] = (10, -25)) -> Figure:
    """Mark a point of the first axes of a figure with an arrow and a text; return the figure.

    Args:
        figure: A figure with curves, such as `plots.accuracy` returns.
        x: Where the point is, in the units of the axes.
        y: Where the point is, in the units of the axes.
        text: What to say about it; it is added to the alternative text.
        offset: Where the text stands, in points from the point.
    """
    figure.axes[0].annotate(
        text,
        (x, y),
        offset,
        textcoords="offset points",
        fontsize="small",
        arrowprops={"arrowstyle": "->", "color": GREY},
    )
    return figure.with_alt(f"{figure.alt} Marked: {text}.")
