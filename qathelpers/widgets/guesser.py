"""Compare what several nets predict for the same image."""

import html
import io

import ipywidgets as ipw
import torch
from PIL import Image, UnidentifiedImageError
from torch import nn
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from ..analysis import plots
from ..data.dataset import Dataset
from ..results.recorded import recorded_net
from ..training.evaluation import predict

SHOWN = 3  # classes shown per net
SIDE = 192  # pixels of the enlarged image
RECORDED = ("PytorchNN", "TernaryNN", "BinaryNN")


class PictureGuesser(ipw.VBox):
    """Pick a test image or upload a photo; see which classes each net predicts, and with which probability.

    The arrows step to the next test image on which the nets disagree. `predictions` maps each net's name to its most
    likely classes, the most likely first; `disagreeing` lists the indices of the test images on which they disagree.

    Args:
        dataset: The data set whose test images are offered.
        nets: Trained nets by name; by default the recorded PytorchNN, TernaryNN and BinaryNN.

    Raises:
        CourseError: If `nets` is not given and a recorded net is missing.
    """

    def __init__(self, dataset: Dataset, nets: dict[str, nn.Module] | None = None):
        """Create the widget; every net classifies all test images once."""
        self.dataset = dataset
        self.nets = nets or {name: recorded_net(name) for name in RECORDED}
        self._logits = {name: predict(net, dataset.test_images) for name, net in self.nets.items()}
        first, *others = (logits.argmax(1) for logits in self._logits.values())
        self.disagreeing = torch.stack([other != first for other in others]).any(0).nonzero().flatten().tolist()
        last = len(dataset.test_labels) - 1
        self.index = ipw.BoundedIntText(value=0, min=0, max=last, description=f"0 to {last}")
        self.previous = ipw.Button(description="\u2190 disagree", tooltip="previous image on which the nets disagree")
        self.next = ipw.Button(description="disagree \u2192", tooltip="next image on which the nets disagree")
        self.upload = ipw.FileUpload(accept="image/*", multiple=False, description="upload photo")
        self.image = ipw.Image(value=b"", format="png", width=SIDE, height=SIDE)
        self.answer, self.status = ipw.HTML(), ipw.HTML()
        self.index.observe(lambda _: self._show_test_image(), names="value")
        self.upload.observe(lambda change: self._show_upload(change["new"]), names="value")
        self.previous.on_click(lambda _: self._step(-1))
        self.next.on_click(lambda _: self._step(1))
        super().__init__(
            [
                ipw.HBox([self.previous, self.index, self.next, self.upload]),
                self.status,
                ipw.HBox([self.image, self.answer], layout=ipw.Layout(align_items="flex-start")),
            ]
        )
        self._show_test_image()

    def _step(self, direction: int) -> None:
        here = self.index.value
        ahead = [index for index in self.disagreeing[::direction] if (index - here) * direction > 0]
        if ahead:
            self.index.value = ahead[0]
        else:
            self.status.value = "The nets agree on all remaining images in this direction."

    def _show_test_image(self) -> None:
        index = self.index.value
        title = self.dataset.classes[self.dataset.test_labels[index]]
        note = f"The nets disagree on {len(self.disagreeing):,} of {len(self.dataset.test_labels):,} test images."
        self.status.value = f"Test image {index}: {html.escape(title)}. {note}"
        self._show(self.dataset.test_images[index], {name: logits[index] for name, logits in self._logits.items()})

    def _show_upload(self, value: dict | tuple) -> None:
        if not value:
            return
        try:
            image = read_photo(uploaded_content(value))
        except (UnidentifiedImageError, OSError):
            self.status.value = "This file cannot be read as an image: try a .jpg or .png file."
            return
        self.status.value = "Your photo, cropped to a square and resized to 32 x 32 pixels."
        self._show(image, {name: predict(net, image[None])[0] for name, net in self.nets.items()})

    def _show(self, image: torch.Tensor, logits: dict[str, torch.Tensor]) -> None:
        self.image.value = enlarged(image)
        likeliest = {name: values.softmax(0).topk(SHOWN) for name, values in logits.items()}
        self.predictions = {name: [self.dataset.classes[i] for i in top.indices] for name, top in likeliest.items()}
        self.answer.value = "".join(
            _bars(name, self.predictions[name], top.values.tolist()) for name, top in likeliest.items()
        )


def uploaded_content(value: dict | tuple) -> bytes:
    """Return the content of the first file in the value of a FileUpload widget, of ipywidgets 7 or 8."""
    # ipywidgets 7 gives a dict of files by name, ipywidgets 8 a tuple of files.
    file = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return bytes(file["content"])


def read_photo(content: bytes) -> torch.Tensor:
    """Return the image in the `content` of a file as uint8 (3, 32, 32), center-cropped to a square and resized.

    Raises:
        PIL.UnidentifiedImageError: If the content is not an image.
        OSError: If the image is damaged.
    """
    image = Image.open(io.BytesIO(content)).convert("RGB")
    return pil_to_tensor(resize(center_crop(image, min(image.size)), [32, 32]))


def enlarged(image: torch.Tensor) -> bytes:
    """Return a uint8 image (3, 32, 32), enlarged so that its pixels are visible, as the content of a .png file."""
    file = io.BytesIO()
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.resize((SIDE, SIDE), Image.Resampling.NEAREST).save(file, "png")
    return file.getvalue()


def _bars(name: str, classes: list[str], probabilities: list[float]) -> str:
    colour = plots.colour(name)
    rows = "".join(
        f"<tr><td style='width: 6em'>{html.escape(title)}</td>"
        "<td style='width: 160px'>"
        f"<div style='background: {colour}; height: 10px; width: {probability:.0%}'></div></td>"
        f"<td>{probability:.0%}</td></tr>"
        for title, probability in zip(classes, probabilities, strict=True)
    )
    table = f"<table style='line-height: 1.3'>{rows}</table>"
    return f"<div style='margin-left: 16px'><b>{html.escape(name)}</b>{table}</div>"
