"""Compare what several nets predict for the same image."""

import html
import io

import ipywidgets as ipw
import torch
from PIL import Image
from torch import nn

from ..analysis import plots
from ..common.errors import CourseError
from ..data.dataset import TITLES, Dataset
from ..data.pictures import read_picture
from ..nets.architectures import spec_of
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
        dataset: The data set whose test images are offered, and whose classes the nets predict. Photos are cropped to
            the largest centred square and resized to the size of its images; see `data.read_picture`.
        nets: Trained nets by name, or a single net; by default the recorded PytorchNN, TernaryNN and BinaryNN. With an
            empty dict, the images are shown without predictions.

    Raises:
        CourseError: If the data set is not valid (see `Dataset.check`), a net cannot process its images, a net has
            fewer outputs than there are classes or gives NaN, a recorded net is missing, or `nets` is not given for
            other images than those of the course.
        ValueError: If an argument has the wrong type, or if two nets have the same name.
    """

    def __init__(self, dataset: Dataset, nets: dict[str, nn.Module] | nn.Module | None = None):
        """Create the widget; every net classifies all test images once."""
        if not isinstance(dataset, Dataset):
            raise ValueError(f"dataset is a {type(dataset).__name__}: pass what `data.load` returns")
        dataset.check()
        self.dataset = dataset
        self.nets = _by_name(nets, dataset)
        self._logits = {name: _predict(name, net, dataset) for name, net in self.nets.items()}
        first, *others = [logits.argmax(1) for logits in self._logits.values()] or [dataset.test_labels]
        differences = [other != first for other in others]
        self.disagreeing = torch.stack(differences).any(0).nonzero().flatten().tolist() if differences else []
        self.predictions: dict[str, list[str]] = {}
        last = len(dataset.test_labels) - 1
        self.index = ipw.BoundedIntText(value=0, min=0, max=last, description=f"0 to {last}")
        self.previous = ipw.Button(description="\u2190 disagree", tooltip="previous image on which the nets disagree")
        self.next = ipw.Button(description="disagree \u2192", tooltip="next image on which the nets disagree")
        self.upload = ipw.FileUpload(accept="image/*", multiple=False, description="upload photo")
        self.previous.disabled = self.next.disabled = not self.disagreeing
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
        note = ""
        if len(self.nets) > 1:
            note = f" The nets disagree on {len(self.disagreeing):,} of {len(self.dataset.test_labels):,} test images."
        self.status.value = f"Test image {index}: {html.escape(title)}.{note}"
        self._show(self.dataset.test_images[index], {name: logits[index] for name, logits in self._logits.items()})

    def _show_upload(self, value: dict | tuple) -> None:
        if not value:
            return
        name, content = uploaded_file(value)
        channels, _, side = self.dataset.test_images.shape[1:]
        try:
            image = read_picture(content, side, name=name, channels=channels)
        except CourseError as error:
            # The answers for the image before must not be taken for those for this file.
            self.predictions, self.answer.value, self.image.layout.visibility = {}, "", "hidden"
            self.status.value = html.escape(str(error))
            return
        self.status.value = f"{html.escape(name)}, cropped to a square and resized to {side} x {side} pixels."
        self._show(image, {name: predict(net, image[None])[0] for name, net in self.nets.items()})

    def _show(self, image: torch.Tensor, logits: dict[str, torch.Tensor]) -> None:
        self.image.value, self.image.layout.visibility = enlarged(image), "visible"
        shown = min(SHOWN, len(self.dataset.classes))
        likeliest = {name: values.softmax(0).topk(shown) for name, values in logits.items()}
        self.predictions = {name: [self._title(i) for i in top.indices.tolist()] for name, top in likeliest.items()}
        self.answer.value = "".join(
            _bars(name, self.predictions[name], top.values.tolist()) for name, top in likeliest.items()
        )

    def _title(self, output: int) -> str:
        """Return the name of the class of an output; a net can have more outputs than the data set has classes."""
        classes = self.dataset.classes
        return classes[output] if output < len(classes) else f"output {output}"


def uploaded_file(value: dict | tuple) -> tuple[str, bytes]:
    """Return the name and the content of the first file in the value of a FileUpload widget, of ipywidgets 7 or 8."""
    # ipywidgets 7 gives a dict of files by name, ipywidgets 8 a tuple of files.
    name, file = next(iter(value.items())) if isinstance(value, dict) else (value[0].get("name"), value[0])
    return name or "The picture", bytes(file["content"])


def enlarged(image: torch.Tensor) -> bytes:
    """Return a uint8 image (3, h, h) or (1, h, h), with visible pixels, as the content of a .png file."""
    file = io.BytesIO()
    picture = Image.fromarray(image.permute(1, 2, 0).numpy() if len(image) == 3 else image[0].numpy())
    picture.resize((SIDE, SIDE), Image.Resampling.NEAREST).save(file, "png")
    return file.getvalue()


def _by_name(nets: dict[str, nn.Module] | nn.Module | None, dataset: Dataset) -> dict[str, nn.Module]:
    if nets is None:
        if dataset.name not in TITLES:
            raise CourseError(
                f"The recorded nets do not know the classes of {dataset.name}: pass nets that were trained on it, such "
                "as {'mine': net}."
            )
        return {name: recorded_net(name) for name in RECORDED}
    if isinstance(nets, nn.Module):
        return {spec_of(nets).name: nets}
    if not isinstance(nets, dict):
        raise ValueError(f"nets must be a dict of nets by name, or one net; got {type(nets).__name__}")
    for name, net in nets.items():
        if not isinstance(net, nn.Module):
            raise ValueError(
                f"nets must be a dict of nets by name; {name!r} is a {type(net).__name__}: build and train the net, or "
                "load it with checkpoint.load"
            )
    named = {str(name): net for name, net in nets.items()}
    if len(named) < len(nets):
        raise ValueError("two of the nets have the same name: give each a name of its own")
    return named


def _predict(name: str, net: nn.Module, dataset: Dataset) -> torch.Tensor:
    """Return the logits (n, outputs) of `net` for all test images, after a check that they can be shown."""
    channels, side, _ = dataset.test_images.shape[1:]
    try:
        logits = predict(net, dataset.test_images)
    except CourseError:
        raise
    except Exception as error:  # a net of your own can raise anything
        raise CourseError(
            f"The net {name} cannot process images of {channels} x {side} x {side} (channels x height x width): pass a "
            f"net that was trained on {dataset.name} ({type(error).__name__}: {error})."
        ) from error
    if logits.ndim != 2 or logits.shape[1] < len(dataset.classes):
        raise CourseError(
            f"The net {name} has outputs of shape {tuple(logits.shape[1:])}, but {dataset.name} has "
            f"{len(dataset.classes)} classes: pass a net that was trained on this data set."
        )
    if not logits.isfinite().all():
        raise CourseError(
            f"The net {name} gives NaN or infinite logits: look for NaN in its weights, and train it again."
        )
    return logits


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
