"""What the nets say about a picture, side by side."""

import html
import io

import ipywidgets as ipw
import torch
from PIL import Image, UnidentifiedImageError
from torch import nn
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from .. import plots, results
from ..data import Data

SHOWN = 3  # guesses a net
SIDE = 192  # pixels of the enlarged picture


class PictureGuesser(ipw.VBox):
    """Pick a test picture or upload a photograph; see what each net takes it for, and how sure it is.

    `nets` maps names to trained nets: those that come with the course unless you give others. The arrows go to the next
    picture about which the nets disagree. `guesses` holds each net's classes, the likeliest first, for the next cell.
    """

    def __init__(self, data: Data, nets: dict[str, nn.Module] | None = None):
        """Let every net guess every test picture once; raises CourseError when no recorded nets are there."""
        self.data = data
        self.nets = nets or {name: results.recorded_net(name) for name in ("PytorchNN", "TernaryNN", "BinaryNN")}
        self._logits = {name: results.predict(net, data.test_images) for name, net in self.nets.items()}
        first, *others = (logits.argmax(1) for logits in self._logits.values())
        self.disagreeing = torch.stack([other != first for other in others]).any(0).nonzero().flatten().tolist()
        last = len(data.test_labels) - 1
        self.index = ipw.BoundedIntText(value=0, min=0, max=last, description=f"0 to {last}")
        self.previous = ipw.Button(
            description="\u2190 disagree", tooltip="the picture before, about which they disagree"
        )
        self.next = ipw.Button(description="disagree \u2192", tooltip="the next picture about which they disagree")
        self.upload = ipw.FileUpload(accept="image/*", multiple=False, description="a photograph")
        self.picture = ipw.Image(value=b"", format="png", width=SIDE, height=SIDE)
        self.answer, self.status = ipw.HTML(), ipw.HTML()
        self.index.observe(lambda _: self._show_test_picture(), names="value")
        self.upload.observe(lambda change: self._show_upload(change["new"]), names="value")
        self.previous.on_click(lambda _: self._step(-1))
        self.next.on_click(lambda _: self._step(1))
        super().__init__(
            [
                ipw.HBox([self.previous, self.index, self.next, self.upload]),
                self.status,
                ipw.HBox([self.picture, self.answer], layout=ipw.Layout(align_items="flex-start")),
            ]
        )
        self._show_test_picture()

    def _step(self, direction: int) -> None:
        here = self.index.value
        ahead = [index for index in self.disagreeing[::direction] if (index - here) * direction > 0]
        if ahead:
            self.index.value = ahead[0]
        else:
            self.status.value = "They agree on all others in this direction."

    def _show_test_picture(self) -> None:
        index = self.index.value
        title = self.data.classes[self.data.test_labels[index]]
        note = f"{len(self.disagreeing):,} of {len(self.data.test_labels):,} pictures are taken for different things."
        self.status.value = f"Test picture {index}: {html.escape(title)}. {note}"
        self._show(self.data.test_images[index], {name: logits[index] for name, logits in self._logits.items()})

    def _show_upload(self, value: dict | tuple) -> None:
        if not value:
            return
        try:
            picture = shrink(_content(value))
        except (UnidentifiedImageError, OSError):
            self.status.value = "This file is no picture that can be read: try a .jpg or .png file."
            return
        self.status.value = "Your photograph, cropped to a square and shrunk to 32 x 32 pixels."
        self._show(picture, {name: results.predict(net, picture[None])[0] for name, net in self.nets.items()})

    def _show(self, picture: torch.Tensor, logits: dict[str, torch.Tensor]) -> None:
        self.picture.value = enlarged(picture)
        shares = {name: values.softmax(0).topk(SHOWN) for name, values in logits.items()}
        self.guesses = {name: [self.data.classes[i] for i in top.indices] for name, top in shares.items()}
        self.answer.value = "".join(
            _bars(name, self.guesses[name], top.values.tolist()) for name, top in shares.items()
        )


def shrink(content: bytes) -> torch.Tensor:
    """Return an image file's content as uint8 (3, 32, 32), its largest square in the middle shrunk.

    Raises PIL's UnidentifiedImageError or an OSError when it is no image.
    """
    image = Image.open(io.BytesIO(content)).convert("RGB")
    return pil_to_tensor(resize(center_crop(image, min(image.size)), [32, 32]))


def enlarged(picture: torch.Tensor) -> bytes:
    """Return uint8 (3, 32, 32) as a .png file's content with pixels that can be seen."""
    file = io.BytesIO()
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    image.resize((SIDE, SIDE), Image.Resampling.NEAREST).save(file, "png")
    return file.getvalue()


def _content(value: dict | tuple) -> bytes:
    # ipywidgets 7 gives a dictionary by file name, 8 a tuple of dictionaries.
    file = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return bytes(file["content"])


def _bars(name: str, titles: list[str], shares: list[float]) -> str:
    colour = plots.colour(name)
    rows = "".join(
        f"<tr><td style='width: 6em'>{html.escape(title)}</td><td style='width: 160px'>"
        f"<div style='background: {colour}; height: 10px; width: {share:.0%}'></div></td><td>{share:.0%}</td></tr>"
        for title, share in zip(titles, shares, strict=True)
    )
    table = f"<table style='line-height: 1.3'>{rows}</table>"
    return f"<div style='margin-left: 16px'><b>{html.escape(name)}</b>{table}</div>"
