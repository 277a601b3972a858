"""Draw the picture of the README: the accuracy of every recorded net against its size.

Run it as `python -m tools.picture`; `tools.record` updates the picture, too.
"""

import functools
import re
from pathlib import Path

import click
import matplotlib as mpl

from qathelpers import results
from qathelpers.analysis.figure import GREY, Figure, colour, new
from qathelpers.common.files import write_atomically
from qathelpers.nets import build, packing

from . import commands

README, PICTURE = "README.md", "docs/accuracy-against-bytes.svg"  # in the checkout
ALT = re.compile(rf"!\[[^\]]*\]\({re.escape(PICTURE)}\)")

MARKERS = {"lenet": "v", "convnet": "o", "sharpnet": "s", "sharpnet-x2": "D"}  # one per architecture
PLACES = {
    "BinaryNN": (-9, 4),
    "TernaryNN": (-2, 9),
    "Int2NN": (8, -10),
    "Int4NN": (-2, 9),
    "PytorchNN": (-9, 4),
}  # in points


@functools.cache
def points() -> dict[str, list[tuple[str, float, float]]]:
    """Return for each net its recorded runs on CIFAR-10: (architecture, kB of the packed net, mean test accuracy)."""
    found = {}
    for arch in MARKERS:
        summary = results.summarize(results.recorded_histories(arch, seed=None))
        for name, accuracy in summary["test"].items():
            found.setdefault(name, []).append((arch, packing.kilobytes(build(name, arch)), float(accuracy)))
    return found


def draw() -> Figure:
    """Draw one line per net through its architectures; the x-axis is logarithmic."""
    figure, axes = new(8, 4.4)
    nets = points()
    for name, rows in nets.items():
        shade = colour(name)
        line = [row[1:] for row in rows if row[0] != "lenet"]  # LeNet is no narrower convnet, so no line leads to it
        axes.plot(*zip(*line, strict=True), color=shade, alpha=0.5)
        for arch, size, accuracy in rows:
            axes.plot(size, accuracy, MARKERS[arch], color=shade, markersize=6)
        end, place = rows[-1][1:], PLACES.get(name, (8, -4))
        side = "right" if place[0] < -5 else "left"
        axes.annotate(name, end, place, textcoords="offset points", color=shade, ha=side)
    for arch, marker in MARKERS.items():
        axes.plot([], [], marker, color=GREY, label=arch)
    axes.legend(title="architecture", frameon=False, loc="lower right")
    axes.set(xscale="log", xlabel="kB of the packed net", ylabel="test accuracy on CIFAR-10")
    listed = "; ".join(
        f"{name} {size:,.0f} kB and {accuracy:.3f} ({arch})" for name, (*_, (arch, size, accuracy)) in nets.items()
    )
    return figure.with_alt(
        f"Test accuracy on CIFAR-10 against size, with one line per net. The lines end at: {listed}."
    )


def update(root: Path) -> list[Path]:
    """Draw the picture into the checkout `root`, and write its alternative text into the README.

    Returns:
        The files that were written.
    """
    figure = draw()
    with mpl.rc_context({"svg.hashsalt": "qathelpers", "svg.fonttype": "path"}):  # the same bytes every time
        about = {"Date": None, "Description": figure.alt}
        write_atomically(
            root / PICTURE, lambda path: figure.savefig(path, format="svg", facecolor="white", metadata=about)
        )
    readme = (root / README).read_text(encoding="utf-8")
    text = ALT.sub(lambda _: f"![{figure.alt}]({PICTURE})", readme)
    write_atomically(root / README, lambda path: path.write_text(text, encoding="utf-8"))
    return [root / PICTURE, root / README]


@click.command(cls=commands.Command)
def main() -> None:
    """Draw the picture of the README from the recorded runs."""
    print("saved", *update(commands.CHECKOUT))


if __name__ == "__main__":
    main()
