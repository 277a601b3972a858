"""What the guesser shows: enlarged images, and the answers of each net as a column."""

import html
import io
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw

from ..analysis.figure import colour

SIDE = 192  # pixels of the enlarged image
FRAME = 3  # pixels; a white line between two black ones, which is visible on every photograph


def enlarged(image: torch.Tensor) -> bytes:
    """Return a uint8 image (3, h, h) or (1, h, h), with visible pixels, as the content of a .png file."""
    return _png(_as_image(image).resize((SIDE, SIDE), Image.Resampling.NEAREST))


def framed(image: torch.Tensor) -> bytes:
    """Return a uint8 image (3, h, w) or (1, h, w) with a frame around its largest centred square, as a .png file."""
    picture = _as_image(image).convert("RGB")
    width, height = picture.size
    factor = SIDE / height
    picture = picture.resize((max(1, round(width * factor)), SIDE))
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    draw = ImageDraw.Draw(picture)
    for inset in range(FRAME):
        corners = (left + inset, top + inset, left + side - 1 - inset, top + side - 1 - inset)
        draw.rectangle(corners, outline="white" if inset == FRAME // 2 else "black")
    return _png(picture)


def column(name: str, classes: Sequence[str], probabilities: Sequence[float], truth: str | None) -> str:
    """Return the answers of one net as HTML: a bar per class, and whether the first one is right.

    Args:
        name: The net's name.
        classes: The classes that are shown, the most likely first.
        probabilities: The probability that the net gives each of them.
        truth: The true class, which is marked; None if it is not known.
    """
    verdict = ""
    if truth is not None:
        is_right = classes[0] == truth
        verdict = f' <span class="qat-{"good" if is_right else "bad"}">{"✓ right" if is_right else "✗ wrong"}</span>'
    rows = "".join(
        f"<tr><td>{_class(title, truth)}</td><td>{_bar(name, probability)}</td>"
        f'<td class="qat-share">{probability:.0%}</td></tr>'
        for title, probability in zip(classes, probabilities, strict=True)
    )
    return f"<div><b>{html.escape(name)}</b>{verdict}<table>{rows}</table></div>"


def _class(title: str, truth: str | None) -> str:
    text = html.escape(title)
    return f'<b>{text}</b> <span class="qat-quiet">← true class</span>' if title == truth else text


def _bar(name: str, probability: float) -> str:
    fill = f"background: {colour(name)}; width: {max(probability, 0):.1%}"
    return f'<span class="qat-track"><div style="{fill}"></div></span>'


def _as_image(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy() if len(image) == 3 else image[0].numpy())


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "png", compress_level=1)
    return file.getvalue()
