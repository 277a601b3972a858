"""A picture of what a budget in kilobytes buys: width or bits."""

import pandas as pd

from ..figure import NEGATIVE, Figure, colour, new


def kilobytes_against_width(table: pd.DataFrame, budget: float) -> Figure:
    """Plot packed size against width on log axes: one curve per net, and a line at the budget.

    Args:
        table: kB, one row per width (the index) and one column per net.
        budget: The budget in kB.
    """
    figure, axes = new(6.4, 4.2)
    inside = []
    for name, sizes in table.items():
        axes.plot(table.index, sizes, "o-", color=colour(name), markersize=3)
        axes.annotate(
            name, (table.index[-1], sizes.iloc[-1]), (5, 0), textcoords="offset points", va="center", color=colour(name)
        )
        fitting = table.index[sizes <= budget]
        inside.append(f"{name} {max(fitting):g}" if len(fitting) else f"{name} none")
    axes.axhline(budget, color=NEGATIVE, linestyle="--")
    axes.annotate(f"{budget:g} kB", (table.index[0], budget), (0, 4), textcoords="offset points", color=NEGATIVE)
    axes.set(xscale="log", yscale="log", xlabel=table.index.name or "width", ylabel="kB, packed")
    ticks = list(table.index)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    return figure.with_alt(
        f"Packed size against width, one rising curve per net, and a line at {budget:g} kB. The largest width in the "
        f"plot that fits: {', '.join(inside)}."
    )
