"""Choose runs and compare their curves, sizes and accuracies."""

import html
import re
from collections.abc import Callable, Iterable, Sequence

import ipywidgets as ipw

from ..analysis.figure import Figure, colour
from ..analysis.plots.curves import title
from ..common.errors import CourseError
from ..results.recorded import recorded_histories
from ..results.runs import problem_with
from ..results.tables import table
from ..training.history import History, check_one_data_set
from .comparison_plots import DASHES, CurvesPlot, SizesPlot, alt, repeats
from .preview import WithPreview
from .still import still
from .style import Widget, announced, button, picture, row, tick, unseen

COLUMNS = ["bits", "kB", "train", "test", "validation", "epochs", "seed"]
AT_FIRST = 3  # runs that are ticked when the widget appears
FIRST_COLUMN, OTHER_COLUMN = 150, 84  # widths in pixels
CSS_STYLES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "double"}


class Comparison(WithPreview, Widget):
    """Tick runs to compare their training curves, their accuracy against their size, and a table of results.

    `ticked` has the runs that are shown, for use in the next cell.

    Args:
        histories: The runs to choose from, or one run; by default the recorded runs of `arch` that come with the
            course. Runs of your own schemes and architectures are shown like those of the course.
        arch: Name of the architecture whose recorded runs are shown if `histories` is not given.

    Raises:
        CourseError: If no run of `arch` is recorded, if the runs are on several data sets, if a run has no epochs, or
            if its config lacks something that is shown.
        ValueError: If `histories` is something else.
    """

    def __init__(self, histories: Sequence[History] | History | None = None, arch: str = "convnet"):
        """Create the widget with the first three runs ticked."""
        self.histories = _recorded(arch) if histories is None else _checked(histories)
        check_one_data_set(self.histories)
        self._results = table(self.histories)
        self.boxes = [tick(_title(history), number < AT_FIRST) for number, history in enumerate(self.histories)]
        self.choices = {name: button(name) for name in CHOICES}
        self.train = tick("show training accuracy (thin lines)", False)
        self.curves, self.sizes = picture(560, 300), picture(420, 280)
        self.table, self.status, self._unseen = ipw.HTML(), ipw.HTML(), ipw.HTML()
        columns = [column for column in COLUMNS if column in self._results]  # old runs have no size
        self.heads = {name: button(name, f"sort by {name}") for name in ("net", *columns)}
        self._plots = self._make_plots()
        self._sorted_by, self._descending, self._held = None, False, False
        self._observe()
        legend = row(*map(_entry, self.boxes, self.histories, repeats(self.histories)), gap="0px 18px")
        self.body = ipw.VBox(
            [
                row(self.curves, self.sizes, align="flex-start"),
                self.train,
                ipw.VBox([self._heads_row(), self.table], layout=ipw.Layout(overflow="auto")),
            ]
        )
        super().__init__([row(*self.choices.values()), legend, self.status, self.body, self._unseen])
        self._update()

    @property
    def ticked(self) -> list[History]:
        """The runs that are shown."""
        return [history for history, box in zip(self.histories, self.boxes, strict=True) if box.value]

    def preview(self) -> Figure:
        """Return a still picture of the widget."""
        shown = self.ticked
        if not shown:
            return still("Comparison", ["Tick at least one run."], "No run is ticked.")
        lines = [f"Ticked: {', '.join(map(_title, shown))}"]
        return still("Comparison", lines, alt(shown), [self.curves.value, self.sizes.value])

    def _make_plots(self) -> tuple[CurvesPlot, SizesPlot] | None:
        if not self.histories:
            return None
        return CurvesPlot(self.histories, title(self.histories)), SizesPlot(self.histories)

    def _observe(self) -> None:
        for box in (*self.boxes, self.train):
            box.observe(lambda _: self._update(), names="value")
        for name, choice in self.choices.items():
            choice.disabled = name != "none" and not any(map(CHOICES[name], self.histories))
            choice.on_click(lambda _, name=name: self._choose(name))
        for name, head in self.heads.items():
            head.on_click(lambda _, name=name: self._sort(name))

    def _heads_row(self) -> ipw.HBox:
        for number, head in enumerate(self.heads.values()):
            width = f"{OTHER_COLUMN if number else FIRST_COLUMN}px"
            head.layout = ipw.Layout(width=width, margin="0px", flex="0 0 auto")
        return ipw.HBox(list(self.heads.values()), layout=ipw.Layout(overflow="visible"))

    def _choose(self, name: str) -> None:
        self._held = True  # one picture for all boxes together
        for box, history in zip(self.boxes, self.histories, strict=True):
            box.value = CHOICES[name](history)
        self._held = False
        self._update()

    def _sort(self, name: str) -> None:
        # A first click puts the best on top; names and bits begin with the first letter.
        self._descending = not self._descending if name == self._sorted_by else name not in ("net", "bits", "kB")
        self._sorted_by = name
        self._show_table()

    def _update(self) -> None:
        if self._held:
            return
        shown = self.ticked
        sentence = "" if shown else "Tick at least one run." if self.boxes else "There are no runs to compare."
        self.status.value = announced(sentence) if sentence else ""
        self.body.layout.display = None if shown else "none"
        if shown:
            ticks = [box.value for box in self.boxes]
            self.curves.value = self._plots[0].png(ticks, train=self.train.value)
            self.sizes.value = self._plots[1].png(ticks)
        self._show_table()
        self._unseen.value = unseen(alt(shown)) if shown else ""

    def _show_table(self) -> None:
        for name, head in self.heads.items():
            arrow = (" ▼" if self._descending else " ▲") if name == self._sorted_by else ""
            head.description = name + arrow
        shown = self._results[[box.value for box in self.boxes]] if self.boxes else self._results
        if self._sorted_by:
            shown = shown.reset_index().sort_values(self._sorted_by, ascending=not self._descending, kind="stable")
            shown = shown.set_index("net")
        self.table.value = (
            _as_html(shown, list(self.heads)[1:], self._sorted_by, self._descending) if len(shown) else ""
        )


def _is_quantized(text: str) -> bool:
    """Return whether "W1" or "A32" names fewer bits than a float has."""
    return float(text[1:]) < 32


def _bits(history: History) -> tuple[bool, bool] | None:
    """Return whether weights and activations are quantized, given "W1A32"; None if `bits` is not of this form."""
    match = re.fullmatch(r"(W\d+(?:\.\d+)?)(A\d+(?:\.\d+)?)", history.config["bits"])
    return (_is_quantized(match[1]), _is_quantized(match[2])) if match else None


CHOICES: dict[str, Callable[[History], bool]] = {
    "all": lambda history: True,
    "none": lambda history: False,
    "weights only": lambda history: _bits(history) == (True, False),
    "weights and activations": lambda history: _bits(history) == (True, True),
}


def _entry(box: ipw.Checkbox, history: History, repeat: int) -> ipw.HBox:
    """Return a box to tick with the line of its run, on white as in the picture: together, they are the legend."""
    line = f"border-top: 4px {CSS_STYLES[DASHES[repeat % len(DASHES)]]} {colour(history.name)}"
    swatch = ipw.HTML(f'<span class="qat-swatch"><span style="display: block; {line}"></span></span>')
    return ipw.HBox([swatch, box], layout=ipw.Layout(align_items="center", grid_gap="6px", overflow="visible"))


def _as_html(shown, columns: list[str], sorted_by: str | None, descending: bool) -> str:
    """Return the rows as a table whose head only screen readers see: the buttons above it are the visible one."""
    order = "descending" if descending else "ascending"
    heads = "".join(
        f'<th scope="col" style="width: {OTHER_COLUMN if number else FIRST_COLUMN}px"'
        f"{f' aria-sort={order!r}' if name == sorted_by else ''}>"
        f'<span class="qat-hidden">{name}</span></th>'
        for number, name in enumerate(("net", *columns))
    )
    rows = "".join(
        f'<tr><th scope="row">{html.escape(str(name))}</th>'
        + "".join(f"<td>{_cell(column, record[column])}</td>" for column in columns)
        + "</tr>"
        for name, record in shown.iterrows()
    )
    return (
        '<table class="qat-numbers" style="table-layout: fixed; width: min-content">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _cell(column: str, value: object) -> str:
    if value != value:  # NaN: a run without a size
        return "–"
    return f"{value:.4f}" if column in ("train", "test", "validation") else html.escape(str(value))


def _recorded(arch: str) -> list[History]:
    histories = recorded_histories(str(arch))
    if not histories:
        raise CourseError(
            f"No runs of {arch} are recorded: pass your own, such as results.find_histories(results.run_folder(data, "
            "arch)), or choose an architecture of the course."
        )
    return histories


def _checked(histories: Sequence[History] | History) -> list[History]:
    if isinstance(histories, History):
        histories = [histories]
    if not isinstance(histories, Iterable) or isinstance(histories, dict):
        raise ValueError(f"histories must be a list of histories; got {type(histories).__name__}")
    histories = list(histories)
    for history in histories:
        if not isinstance(history, History):
            raise ValueError(f"histories must be a list of histories; it contains a {type(history).__name__}")
        problem = problem_with(history.config) or ("" if "arch" in history.config else "lacks arch")
        if problem:
            raise CourseError(f"The config of the run {history.name} {problem}: leave that run out.")
    return histories


def _title(history: History) -> str:
    seed = f", seed {history.config['seed']}" if history.config["seed"] else ""
    return f"{history.name} ({history.config['bits']}{seed})"
