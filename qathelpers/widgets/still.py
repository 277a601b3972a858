"""Still pictures of widgets, for pages that show a notebook without a kernel."""

import io
import textwrap
from collections.abc import Sequence

from PIL import Image

from ..analysis.figure import Figure

LINE = 0.24  # inches
WIDTH = 9.0  # inches


def still(title: str, lines: Sequence[str], alt: str, pictures: Sequence[bytes] = ()) -> Figure:
    """Return a figure with a title, some lines of text and a row of pictures below them.

    Args:
        title: What the widget is called.
        lines: What it says at the moment.
        alt: What it shows, for the alternative text.
        pictures: The contents of .png files; they are shown at the same scale, beside each other.
    """
    images = [Image.open(io.BytesIO(picture)) for picture in pictures]
    wrapped = [part for line in lines for part in textwrap.wrap(line, 118)]
    text = LINE * (len(wrapped) + 3)
    scale = WIDTH / sum(image.width for image in images) if images else 0
    height = scale * max((image.height for image in images), default=0)
    figure = Figure(figsize=(WIDTH, text + height))
    whole = text + height
    figure.text(
        0.01, 1 - LINE / whole, f"{title} (a still picture: run the cell to use it)", weight="bold", va="center"
    )
    for number, line in enumerate(wrapped, start=2):
        figure.text(0.01, 1 - number * LINE / whole, line, va="center", fontsize="small")
    left = 0.0
    for image in images:
        width = scale * image.width / WIDTH
        tall = scale * image.height / whole
        axes = figure.add_axes((left, height / whole - tall, width, tall))
        axes.imshow(image)
        axes.axis("off")
        left += width
    return figure.with_alt(f"Still picture of a widget: {title}. {alt} {' '.join(lines)}")
