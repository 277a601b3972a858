"""Compare what several nets predict for the same image."""

import ipywidgets as ipw
import torch
from torch import nn

from ..analysis.figure import Figure
from ..common.errors import CourseError, translated
from ..data.dataset import TITLES, Dataset
from ..data.pictures import read_with_whole
from ..nets.architectures import spec_of
from ..results.recorded import recorded_net
from ..training.evaluation import predict
from .answers import SIDE, column, enlarged, framed
from .preview import WithPreview
from .still import still
from .style import Widget, announced, button, row, wide

SHOWN = 3  # classes shown per net, besides the true one
RECORDED = ("PytorchNN", "TernaryNN", "BinaryNN")
EVERY, DISAGREE, ONLY = "all images", "the nets disagree", "only {} is right"
ALL_WRONG, WRONG = "all nets are wrong", "the net is wrong"
ANY_CLASS = "any class"


class PictureGuesser(WithPreview, Widget):
    """Pick a test image or upload a photo; see which classes each net predicts, and with which probability.

    Choose which test images the arrows step through: those on which the nets disagree, on which only one net is right,
    or on which all are wrong, of all classes or of one. `predictions` maps each net's name to its most likely classes,
    the most likely first; `matching` lists the indices of the images that are stepped through, and `disagreeing` those
    of the test images on which the nets disagree.

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
        self._kinds = _kinds({name: logits.argmax(1) for name, logits in self._logits.items()}, dataset.test_labels)
        self.disagreeing = self._kinds.get(DISAGREE, torch.zeros(0)).nonzero().flatten().tolist()
        self.matching: list[int] = []
        self.predictions: dict[str, list[str]] = {}
        self._make_controls(len(dataset.test_labels) - 1)
        super().__init__(
            [
                row(self.show, self.kind),
                row(self.previous, self.index, self.next, self.upload, self.back),
                self.status,
                row(self.whole, self.image, self.answer, align="flex-start", gap="8px 20px"),
            ]
        )
        self._filter()
        if self.disagreeing:
            self.show.value = DISAGREE  # this goes to the first of these images
        else:
            self._show_test_image()

    def preview(self) -> Figure:
        """Return a still picture of the widget, without the photograph: the data set does not say who owns it."""
        index = self.index.value
        truth = self.dataset.classes[self.dataset.test_labels[index]]
        lines = [f"Test image {index}: {truth}. (The image itself appears when the cell runs.)"]
        for name, classes in self.predictions.items():
            verdict = "right" if classes[0] == truth else "wrong"
            lines.append(f"{name}: {', '.join(classes)} ({verdict})")
        lines.append(", ".join(label for label, _ in self.show.options))
        return still("Picture guesser", lines, "A test image beside the most likely classes according to each net.")

    def _make_controls(self, last: int) -> None:
        self.show = wide(ipw.Dropdown(description="show"), 360)
        self.kind = wide(ipw.Dropdown(description="class"), 300)
        self.index = wide(ipw.BoundedIntText(value=0, min=0, max=last, description=f"0 to {last}"), 180)
        self.index.layout.min_width, self.index.layout.flex = "160px", "0 1 180px"
        self.previous = button("← previous", "the previous image that matches")
        self.next = button("next →", "the next image that matches")
        self.upload = ipw.FileUpload(accept="image/*", multiple=False, description="upload photo")
        self.upload.layout = ipw.Layout(width="auto", flex="0 0 auto")
        if hasattr(self.upload, "tooltip"):  # ipywidgets 7 has none
            self.upload.tooltip = "show what the nets predict for a photograph of yours"
        self.back = button("back to the test images")
        self.whole = ipw.Image(value=b"", format="png", height=SIDE, layout=ipw.Layout(display="none"))
        self.image = ipw.Image(value=b"", format="png", width=SIDE, height=SIDE)
        self.answer, self.status = ipw.HTML(), ipw.HTML()
        self.answer.layout = ipw.Layout(flex="1 1 260px")
        self._filling = False
        for control in (self.show, self.kind):
            control.observe(lambda _: self._filter_and_go(), names="value")
        self.index.observe(lambda _: self._show_test_image(), names="value")
        self.upload.observe(lambda change: self._show_upload(change["new"]), names="value")
        self.previous.on_click(lambda _: self._step(-1))
        self.next.on_click(lambda _: self._step(1))
        self.back.on_click(lambda _: self._go_back())

    def _filter(self) -> None:
        """Find the images that match both choices; write into each choice how many images its entries have."""
        shown, kind = self.show.value or EVERY, self.kind.value
        labels, every = self.dataset.test_labels, range(len(self.dataset.classes))
        of_class = torch.ones_like(labels, dtype=torch.bool) if kind in (None, -1) else labels == kind
        of_show = self._kinds[shown]
        entries = {name: int((matches & of_class).sum()) for name, matches in self._kinds.items()}
        counts = [(ANY_CLASS, -1, int(of_show.sum()))]
        counts += [
            (self.dataset.classes[number], number, int((of_show & (labels == number)).sum())) for number in every
        ]
        self._filling = True  # new entries set the value to the first one
        self.show.options = [(f"{name} ({count:,})", name) for name, count in entries.items()]
        self.kind.options = [(f"{name} ({count:,})", number) for name, number, count in counts]
        self.show.value, self.kind.value = shown, -1 if kind is None else kind
        self._filling = False
        self.matching = (of_show & of_class).nonzero().flatten().tolist()
        self.previous.disabled = self.next.disabled = not self.matching

    def _filter_and_go(self) -> None:
        if self._filling:
            return
        self._filter()
        if self.matching and self.index.value not in self.matching:
            self.index.value = self.matching[0]  # this shows the image
        else:
            self._show_test_image()

    def _step(self, direction: int) -> None:
        here = self.index.value
        ahead = [index for index in self.matching[::direction] if (index - here) * direction > 0]
        if ahead:
            self.index.value = ahead[0]
        else:
            self._show_test_image()
            self.status.value = announced("There are no more matching images in this direction.")

    def _show_test_image(self) -> None:
        index = self.index.value
        truth = self.dataset.classes[self.dataset.test_labels[index]]
        self.status.value = announced(f"Test image {index}: {truth}. {self._where(index)}")
        self.whole.layout.display, self.back.layout.display = "none", "none"
        self._show(self.dataset.test_images[index], {n: logits[index] for n, logits in self._logits.items()}, truth)

    def _go_back(self) -> None:
        # The same photo can be chosen again only if its upload is forgotten.
        self.upload.set_trait("value", type(self.upload.value)())
        self._show_test_image()

    def _where(self, index: int) -> str:
        """Return a sentence on the place of an image among those that are stepped through."""
        if not self.matching:
            return "No image matches this choice."
        if index not in self.matching:
            return f"It is not among the {len(self.matching):,} images that match."
        return f"Image {self.matching.index(index) + 1:,} of the {len(self.matching):,} that match."

    def _show_upload(self, value: dict | tuple) -> None:
        if not value:
            return
        name, content = uploaded_file(value)
        channels, _, side = self.dataset.test_images.shape[1:]
        self.back.layout.display = None
        try:
            with translated():
                image, whole = read_with_whole(content, side, name=name, channels=channels)
                logits = {name: predict(net, image[None])[0] for name, net in self.nets.items()}
        except CourseError as error:
            # The answers for the image before must not be taken for those for this file.
            self.predictions, self.answer.value = {}, ""
            self.image.layout.visibility, self.whole.layout.display = "hidden", "none"
            self.status.value = announced(str(error), "bad")
            return
        self.status.value = announced(
            f"{name}: the nets see the part inside the frame, resized to {side} x {side} pixels."
        )
        self.whole.value, self.whole.layout.display = framed(whole), None
        self._show(image, logits, None)

    def _show(self, image: torch.Tensor, logits: dict[str, torch.Tensor], truth: str | None) -> None:
        self.image.value, self.image.layout.visibility = enlarged(image), "visible"
        columns, self.predictions = [], {}
        for name, values in logits.items():
            probabilities = values.softmax(0)
            top = probabilities.topk(min(SHOWN, len(self.dataset.classes))).indices.tolist()
            self.predictions[name] = [self._title(output) for output in top]
            if truth is not None and truth not in self.predictions[name]:
                top.append(self.dataset.classes.index(truth))
            classes = [self._title(output) for output in top]
            columns.append(column(name, classes, [probabilities[output].item() for output in top], truth))
        self.answer.value = f'<div style="display: flex; flex-wrap: wrap; gap: 8px 24px">{"".join(columns)}</div>'

    def _title(self, output: int) -> str:
        """Return the name of the class of an output; a net can have more outputs than the data set has classes."""
        classes = self.dataset.classes
        return classes[output] if output < len(classes) else f"output {output}"


def _kinds(predictions: dict[str, torch.Tensor], labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return for each choice of images which of the images belong to it, as booleans."""
    kinds = {EVERY: torch.ones_like(labels, dtype=torch.bool)}
    if not predictions:
        return kinds
    answers = torch.stack(list(predictions.values()))
    right = answers == labels
    if len(predictions) > 1:
        kinds[DISAGREE] = (answers != answers[0]).any(0)
        for name, own in zip(predictions, right, strict=True):
            kinds[ONLY.format(name)] = own & (right.sum(0) == 1)
    kinds[ALL_WRONG if len(predictions) > 1 else WRONG] = ~right.any(0)
    return kinds


def uploaded_file(value: dict | tuple) -> tuple[str, bytes]:
    """Return the name and the content of the first file in the value of a FileUpload widget, of ipywidgets 7 or 8."""
    # ipywidgets 7 gives a dict of files by name, ipywidgets 8 a tuple of files.
    name, file = next(iter(value.items())) if isinstance(value, dict) else (value[0].get("name"), value[0])
    return name or "The picture", bytes(file["content"])


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
    try:
        logits = predict(net, dataset.test_images)
    except CourseError as error:
        raise CourseError(f"The net {name} cannot be used: {error}") from error
    if logits.ndim != 2 or logits.shape[1] < len(dataset.classes):
        raise CourseError(
            f"The net {name} has outputs of shape {tuple(logits.shape[1:])}, but {dataset.name} has "
            f"{len(dataset.classes)} classes: pass a net that was trained on this data set."
        )
    if not logits.isfinite().all():
        raise CourseError(
            f"The net {name} returns NaN or infinite logits: look for NaN in its weights, and train it again."
        )
    return logits
