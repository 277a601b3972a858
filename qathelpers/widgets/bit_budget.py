"""Spend a budget in kilobytes on width or on bits, and train the net from there."""

import html
from numbers import Real

import ipywidgets as ipw

from ..analysis.figure import Figure, new
from ..common.errors import CourseError, translated
from ..data.dataset import Dataset
from ..nets import Scheme
from .budget_net import ACTIVATIONS, WEIGHTS, Choice, Costs, costs_of
from .preview import WithPreview
from .still import still
from .style import Widget, announced, button, row, tiles, wide
from .training_panel import TrainingPanel

WIDTHS = (4, 128, 4)  # the smallest and the largest number of channels of a block, and the step between them
COLOURS = {"stem": "#767676", "block 1": "#0072B2", "block 2": "#B35900", "block 3": "#007A59", "last layer": "#8A5A83"}


class BitBudget(WithPreview, Widget):
    """Choose the width and the bits of each block of a `ConvNet`; see what the net costs, and whether it fits a budget.

    `choice` has what is chosen and `costs` what it costs. `name` and `arch` are the names of its scheme and its
    architecture for the next cell: they are added to `SCHEMES` and `ARCHITECTURES` as soon as they are asked for. The
    training panel that Train opens is `panel`.

    Args:
        dataset: The data set to train on.
        budget: The budget for the packed net in kB (1000 bytes).
        choice: What is chosen at first.

    Raises:
        CourseError: If the data set is not valid (see `Dataset.check`), or if its images are too small for the net.
        ValueError: If an argument has the wrong type, or if the budget is not a number above 0.
    """

    def __init__(self, dataset: Dataset, budget: float = 40, choice: Choice | None = None):
        """Create the widget; nothing is trained before Train is pressed."""
        if not isinstance(dataset, Dataset):
            raise ValueError(f"dataset is a {type(dataset).__name__}: pass what `data.load` returns")
        dataset.check()
        if not isinstance(budget, Real) or isinstance(budget, bool) or not 0 < budget < float("inf"):
            raise ValueError(f"budget must be a number of kB above 0; got {budget!r}")
        if choice is not None and not isinstance(choice, Choice):
            raise ValueError(f"choice is a {type(choice).__name__}: pass a Choice, or nothing")
        self.dataset, self.budget, self.panel = dataset, float(budget), None
        self._make_controls(choice or Choice())
        self.meter, self.numbers, self.status = ipw.HTML(), ipw.HTML(), ipw.HTML()
        self.train = button("Train this net", "open a training panel for this net and start it", primary=True)
        self.train.on_click(lambda _: self._train())
        self._place = ipw.VBox([])
        rows = [row(*pair) for pair in zip(self.widths, self.bits, strict=False)]
        super().__init__(
            [
                *rows,
                row(self.bits[3], self.activation),
                self.meter,
                self.numbers,
                row(self.train),
                self.status,
                self._place,
            ]
        )
        self._update()

    @property
    def choice(self) -> Choice:
        """What the controls say."""
        widths = tuple(slider.value for slider in self.widths)
        return Choice(widths, tuple(slider.value for slider in self.bits), self.activation.value)

    @property
    def name(self) -> str:
        """The name of the scheme, which is registered under it."""
        self.choice.register()
        return self.choice.name

    @property
    def arch(self) -> str:
        """The name of the architecture, which is registered under it."""
        self.choice.register()
        return self.choice.arch

    @property
    def scheme(self) -> Scheme:
        """The scheme."""
        return self.choice.scheme

    def preview(self) -> Figure:
        """Return a still picture of the widget."""
        numbers = [f"{title}: {number}" for title, number in _numbers(self.costs).items()]
        lines = [f"{self.choice.arch}, {self.choice.name}", self._verdict(), ", ".join(numbers)]
        alt = "Sliders for the width and the bits of each block, and the packed size of each part beside the budget."
        return still("Bit budget", lines, alt, [self._bar()])

    def _bar(self) -> bytes:
        """Return the packed size of each part and a line at the budget as the content of a .png file."""
        figure, axes = new(9, 1.5)
        left = 0.0
        for name, kilobytes in self.costs.parts.items():
            axes.barh(0, kilobytes, left=left, color=COLOURS[name], label=f"{name} {kilobytes:.1f} kB")
            left += kilobytes
        axes.axvline(self.budget, color="black", linewidth=2)
        axes.set(yticks=[], xlabel=f"kB, packed; the line is the budget of {self.budget:g} kB")
        axes.legend(ncols=5, loc="lower left", bbox_to_anchor=(0, 1), fontsize="small", frameon=False)
        return figure.png()

    def _make_controls(self, choice: Choice) -> None:
        low, high, step = WIDTHS
        self.widths = [
            wide(
                ipw.IntSlider(value=width, min=low, max=max(high, width), step=step, description=f"width {number}"), 340
            )
            for number, width in enumerate(choice.widths, start=1)
        ]
        titles = ("bits 1", "bits 2", "bits 3", "last layer")
        self.bits = [
            wide(ipw.SelectionSlider(options=list(WEIGHTS), value=bits, description=title), 340)
            for title, bits in zip(titles, choice.bits, strict=True)
        ]
        slider = ipw.SelectionSlider(options=list(ACTIVATIONS), value=choice.activation, description="activations")
        self.activation = wide(slider, 340)
        for control in (*self.widths, *self.bits, self.activation):
            control.observe(lambda _: self._update(), names="value")

    def _update(self) -> None:
        image, classes = tuple(self.dataset.train_images.shape[1:]), len(self.dataset.classes)
        self.costs: Costs = costs_of(self.choice, image, classes)
        self.meter.value = _meter(self.costs, self.budget) + announced(
            self._verdict(), "good" if self.costs.kilobytes <= self.budget else "bad"
        )
        self.numbers.value = tiles(_numbers(self.costs))
        self.status.value = ""

    def _verdict(self) -> str:
        spare = self.budget - self.costs.kilobytes
        if spare >= 0:
            return f"✓ {self.costs.kilobytes:.1f} kB: the net fits; {spare:.1f} kB of {self.budget:g} kB are left."
        return f"✗ {self.costs.kilobytes:.1f} kB: {-spare:.1f} kB more than the budget of {self.budget:g} kB."

    def _train(self) -> None:
        try:
            if self.costs.kilobytes > self.budget:
                raise CourseError(f"{self._verdict()} Choose fewer bits or narrower blocks, then train.")
            if self.panel is not None and self.panel.running:
                raise CourseError("A net is still being trained below: stop the training, or wait for its end.")
            with translated():
                self.panel = TrainingPanel(self.dataset, name=self.name, arch=self.arch)
        except CourseError as error:
            self.status.value = announced(str(error), "bad")
            return
        self._place.children = [self.panel]
        if self.panel.running:  # the panel shows a training of an earlier panel
            self.status.value = announced(
                "Another net is being trained in this kernel: stop it in the panel below.", "bad"
            )
            return
        self.panel.train.click()
        self.status.value = announced(f"{self.name} on the architecture {self.arch!r} is being trained below.")


def _numbers(costs: Costs) -> dict[str, str]:
    return {
        "packed size": f"{costs.kilobytes:.1f} kB",
        "MACs per image": f"{costs.macs / 1e6:.2f} million",
        "bit operations per image": f"{costs.bops / 1e6:.0f} million",
        "RAM for feature maps": f"{costs.memory:.1f} kB",
    }


def _meter(costs: Costs, budget: float) -> str:
    """Return a bar with a part for each part of the net and a line at the budget, and the names of the parts."""
    whole = 1.15 * max(costs.kilobytes, budget)
    parts, names = [], []
    for name, kilobytes in costs.parts.items():
        label = f"{html.escape(name)} {kilobytes:.1f} kB"
        shade = f"background: {COLOURS[name]}"
        parts.append(f'<div title="{label}" style="width: {kilobytes / whole:.2%}; {shade}"></div>')
        names.append(f'<span class="qat-key"><span style="{shade}"></span> {label}</span>')
    place = f"{budget / whole:.2%}"
    return (
        f'<div class="qat-meter"><div style="right: calc(100% - {place})">budget {budget:g} kB ▾</div>'
        f'<div class="qat-parts">{"".join(parts)}</div><div class="qat-line" style="left: {place}"></div></div>'
        f"<div>{''.join(names)}</div>"
    )
