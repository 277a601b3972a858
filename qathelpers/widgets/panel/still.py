"""The still picture of a training panel, for pages without a kernel."""

from ...analysis.figure import Figure, colour, new
from .form import Form
from .training import Training


def still(form: Form, training: Training | None, guessing: float) -> Figure:
    """Draw the panel: its form, its button and its curves, or empty axes before the first run.

    Args:
        form: The panel's form.
        training: The training that the panel shows, if any.
        guessing: The accuracy of guessing, 0 to 1.
    """
    figure, (controls, axes) = new(8, 3.4, 1, 2, width_ratios=(1, 1.7))
    controls.axis("off")
    fields = [(one.description, _value(one)) for one in form.controls]
    for number, (name, value) in enumerate(fields):
        controls.text(0.0, 1 - 0.13 * number, name, va="center")
        box = {"facecolor": "white", "edgecolor": "#767676", "boxstyle": "round,pad=0.25"}
        controls.text(0.48, 1 - 0.13 * number, value, va="center", bbox=box)
    button = {"facecolor": "#0b57d0", "edgecolor": "none", "boxstyle": "round,pad=0.5"}
    controls.text(0.02, 1 - 0.13 * len(fields) - 0.07, "  Train  ", va="center", color="white", bbox=button)
    controls.set(xlim=(0, 1), ylim=(-0.05, 1.05))
    history = None if training is None else training.history
    epochs = int(form.epochs.value) if training is None else training.epochs
    if history is not None and len(history):
        for split, line in (("train", "--"), ("test", "-")):
            axes.plot(history["epoch"], history[f"{split}_acc"], line, color=colour(history.name), marker="o", ms=3)
    axes.axhline(guessing, color="black", linestyle=":")
    axes.annotate("guessing", (1, guessing), (-2, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
                  ha="right", fontsize="small")  # fmt: skip
    axes.set(xlim=(0, max(2, epochs)), ylim=(0, 1), xlabel="epoch", ylabel="accuracy")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("The live panel appears here when you run the cell", fontsize="medium")
    chosen = ", ".join(f"{name} {value}" for name, value in fields)
    return figure.with_alt(
        f"A panel that trains a net at the press of a button, with the fields {chosen}, and a chart of the accuracy "
        "per epoch. Run the cell to use it."
    )


def _value(control: object) -> str:
    return f"{control.value:.0%}" if isinstance(control.value, float) else str(control.value)
