"""The two pictures of the comparison: accuracy per epoch, and accuracy against packed size."""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, ScalarFormatter

from ..analysis.figure import Figure, colour, end_labels, style
from ..training.history import History
from .canvas import Canvas
from .style import readable

DASHES = ("-", "--", ":", "-.")  # of the first run of a net, the second one, ...
LETTER, LINE = 0.0205, 0.062  # width and height of a letter of a label, as a share of the axes
LONGEST = 24  # letters of a name
MARKERS = ("o", "s", "^", "D")


class CurvesPlot:
    """The accuracy per epoch of several runs; each name stands at the end of its line.

    The axes fit all runs, so that ticking a run does not change the scale.

    Args:
        histories: The runs.
    """

    def __init__(self, histories: Sequence[History], title: str):
        """Draw all lines once; `png` shows some of them."""
        figure = Figure(figsize=(5.6, 3.7))
        longest = max(map(len, titles(histories)))
        figure.subplots_adjust(left=0.12, right=0.97 - 0.0155 * longest, top=0.9, bottom=0.14)
        self.axes = figure.subplots()
        style(self.axes)
        self.histories, self.lines = histories, []
        for history, number in zip(histories, repeats(histories), strict=True):
            options = {"color": colour(history.name), "linestyle": DASHES[number % len(DASHES)]}
            (test,) = self.axes.plot(history["epoch"], history["test_acc"], linewidth=2, **options)
            (train,) = self.axes.plot(history["epoch"], history["train_acc"], linewidth=0.9, **options)
            for line, values in ((test, history["test_acc"]), (train, history["train_acc"])):
                line.set_marker("o" if len(values) < 20 else "")
                line.set_markersize(3)
            self.lines.append((test, train))
        self.axes.set(xlabel="epoch", ylabel=f"{histories[0].held_out} accuracy", title=title)
        self.axes.xaxis.get_major_locator().set_params(integer=True)
        self.axes.autoscale_view()
        self.axes.autoscale(False)
        self.canvas = Canvas(figure, [line for pair in self.lines for line in pair])

    def png(self, ticked: Sequence[bool], *, train: bool) -> bytes:
        """Return the picture of the ticked runs as the content of a .png file; `train` adds the thin training lines."""
        shown = [number for number, is_shown in enumerate(ticked) if is_shown]
        for text in list(self.axes.texts):
            text.remove()
        names = titles(self.histories)
        ends = [
            (float(self.histories[n]["test_acc"][-1]), names[n], readable(colour(self.histories[n].name)))
            for n in shown
        ]
        end_labels(self.axes, ends)
        lines = [line for n in shown for line in self.lines[n][: 1 + train]]
        return self.canvas.png([*lines, *self.axes.texts])


class SizesPlot:
    """The accuracy after the last epoch against the packed size; runs without a size are left out.

    Args:
        histories: The runs.
    """

    def __init__(self, histories: Sequence[History]):
        """Draw all points once; `png` shows some of them."""
        figure = Figure(figsize=(4.2, 3.7))
        figure.subplots_adjust(left=0.16, right=0.96, top=0.9, bottom=0.14)
        self.axes = figure.subplots()
        style(self.axes)
        self.histories, self.points = histories, {}
        for number, (history, repeat) in enumerate(zip(histories, repeats(histories), strict=True)):
            if history.config.get("kB"):
                marker = MARKERS[repeat % len(MARKERS)]
                place = [history.config["kB"]], [history.test_acc]
                (self.points[number],) = self.axes.plot(*place, marker, color=colour(history.name), markersize=7)
        self.axes.set(
            xscale="log", xlabel="kB, packed", ylabel=f"{histories[0].held_out} accuracy", title="accuracy against size"
        )
        self.axes.margins(0.25)
        self.axes.autoscale_view()
        self.axes.autoscale(False)
        self.axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        self.axes.xaxis.set_minor_locator(NullLocator())
        self.axes.xaxis.set_major_formatter(ScalarFormatter())
        self.axes.xaxis.set_minor_formatter(NullFormatter())
        self.figure, self.canvas = figure, Canvas(figure, self.points.values())

    def png(self, ticked: Sequence[bool]) -> bytes:
        """Return the picture of the ticked runs as the content of a .png file."""
        shown = [number for number in self.points if ticked[number]]
        for text in list(self.axes.texts):
            text.remove()
        names = titles(self.histories)
        places = self._places({number: names[number] for number in shown})
        for number in shown:
            shade, (x, y) = readable(colour(self.histories[number].name)), places[number]
            self.axes.text(
                x, y, names[number], transform=self.axes.transAxes, color=shade, fontsize="small", va="center"
            )
        return self.canvas.png([*(self.points[number] for number in shown), *self.axes.texts])

    def _places(self, names: dict[int, str]) -> dict[int, tuple[float, float]]:
        """Return where each label begins, in fractions of the axes: beside its point, where nothing else is."""
        to_axes = (self.axes.transData - self.axes.transAxes).transform
        points = {n: to_axes((self.points[n].get_xdata()[0], self.points[n].get_ydata()[0])) for n in names}
        taken = [(x - 0.015, y, x + 0.015) for x, y in points.values()]
        places = {}
        for number, (x, y) in sorted(points.items(), key=lambda item: -item[1][1]):
            width = LETTER * len(names[number])
            boxes = [
                (left, y + lift, left + width)
                for lift in (0, LINE, -LINE, 2 * LINE, -2 * LINE)
                for left in (x + 0.03, x - 0.03 - width)
            ]
            free = [box for box in boxes if _is_free(box, taken) and box[0] > 0 and box[2] < 1]
            taken.append((free or boxes)[0])
            places[number] = taken[-1][:2]
        return places


def _is_free(box: tuple[float, float, float], taken: Sequence[tuple[float, float, float]]) -> bool:
    """Return whether a label (left, middle, right) overlaps none of the others."""
    left, middle, right = box
    return not any(left < end and right > start and abs(middle - at) < 0.9 * LINE for start, at, end in taken)


def repeats(histories: Sequence[History]) -> list[int]:
    """Return for each run how many runs of the same net come before it."""
    names = [history.name for history in histories]
    return [names[:number].count(name) for number, name in enumerate(names)]


def titles(histories: Sequence[History]) -> list[str]:
    """Return the name of each run, with its seed where a net has several runs."""
    names = [h.name if len(h.name) <= LONGEST else f"{h.name[: LONGEST - 1]}…" for h in histories]
    return [
        name + (f", seed {h.config['seed']}" if names.count(name) > 1 else "")
        for name, h in zip(names, histories, strict=True)
    ]


def alt(histories: Sequence[History]) -> str:
    """Return what the pictures of these runs show, as a text."""
    ends = ", ".join(f"{name} {h.test_acc:.3f}" for name, h in zip(titles(histories), histories, strict=True))
    kind = histories[0].held_out
    gaps = np.diff(sorted(h.test_acc for h in histories))
    spread = f" The smallest difference between two of them is {gaps.min():.4f}." if len(gaps) else ""
    return f"Accuracy per epoch, and accuracy against packed size. Final {kind} accuracies: {ends}.{spread}"
