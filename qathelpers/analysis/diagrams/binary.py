"""Pictures of a binary net: the sign and its gradient, latent weights on their way, and how many signs flip."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes

from ..figure import GREY, NEGATIVE, POSITIVE, Figure, colour, end_labels, new

SHADES = (POSITIVE, NEGATIVE, "#009E73", "#CC79A7", "#E69F00", "#000000")  # distinct for colour-blind readers
SMALLEST_RATE = 1e-4  # below it, the axis of `flip_rates` is linear, so that it can show a rate of zero


def sign_and_ste(latent: torch.Tensor, scale: float, clip: float = 1.0) -> Figure:
    """Draw Q(w) = s sign(w) with some weights on it, and what three ways to differentiate the sign return.

    Args:
        latent: A few latent weights, any shape.
        scale: The scale s.
        clip: Where the clipping estimator stops to pass the gradient, as a magnitude of a latent weight.
    """
    values = latent.detach().flatten().numpy()
    end = 1.15 * max(np.abs(values).max(), clip)
    figure, (forward, backward) = new(9, 3.2, 1, 2)
    _draw_sign(forward, values, scale, end)
    _draw_estimators(backward, clip, end)
    return figure.with_alt(
        f"Left: the quantizer maps {(values < 0).sum()} negative latent weights to {-scale:.4g} and "
        f"{(values >= 0).sum()} positive ones to {scale:+.4g}; the threshold is 0. Right: the derivative of the sign "
        f"in the backward pass. The true one is 0, the straight-through estimator's is 1 everywhere, and the clipping "
        f"estimator's is 1 between {-clip:g} and {clip:g} and 0 outside."
    )


def latent_paths(paths: Mapping[str, Sequence[float]], turn: int) -> Figure:
    """Plot the way of one latent weight under several rules, with a dot where its sign flips.

    Args:
        paths: The latent weight after each step, from its initial value on, by the name of the rule.
        turn: The number of steps after which the gradient changes its sign.
    """
    figure, axes = new(7.6, 3.4)
    flips = {name: _flips(path) for name, path in paths.items()}
    for shade, (name, path) in zip(SHADES, paths.items(), strict=False):
        axes.plot(path, color=shade)
        axes.plot(flips[name], [path[step] for step in flips[name]], "o", color=shade, markersize=5)
    axes.axhline(0, color="black", linestyle="--", linewidth=1)
    axes.axvline(turn, color=GREY, linewidth=1)
    axes.set(xlabel="step", ylabel="latent weight", xlim=(0, max(map(len, paths.values())) - 1))
    for place, text in ((turn / 2, "gradient pushes up"), (1.5 * turn, "gradient pushes down")):
        axes.annotate(
            text, (place, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center",
            fontsize="small", color=GREY,
        )  # fmt: skip
    shades = zip(SHADES, paths.items(), strict=False)
    end_labels(axes, [(path[-1], name, shade) for shade, (name, path) in shades])
    told = "; ".join(
        f"{name}: ends at {path[-1]:.2f}, its sign flips in step {' and '.join(map(str, flips[name])) or 'none'}"
        for name, path in paths.items()
    )
    return figure.with_alt(f"One latent weight that is pushed up for {turn} steps and then down. {told}.")


def flips_per_epoch(shares: Sequence[float], total: float) -> Figure:
    """Draw the share of the signs that each epoch changed, and the share that differs between start and end.

    Args:
        shares: For each epoch, the share of the signs (0 to 1) that differ between its start and its end.
        total: The share of the signs that differ between the start of the training and its end.
    """
    figure, axes = new(6, 2.9)
    names = [f"epoch {number}" for number in range(1, len(shares) + 1)]
    steps = np.cumsum([0, *shares])
    shade = colour("BinaryNN")
    axes.bar(names, shares, bottom=steps[:-1], color=shade, alpha=0.6)
    axes.bar(["start to end"], [total], color=shade)
    for number, share in enumerate(shares):
        axes.text(number, steps[number] + share / 2, f"{share:.0%}", ha="center", va="center")
        axes.plot([number + 0.4, number + 1.4], [steps[number + 1]] * 2, ":", color=GREY, linewidth=1)
    axes.text(len(shares), total / 2, f"{total:.0%}", ha="center", va="center", color="white")
    if steps[-1] - total >= 0.005:
        # A sign that flips and flips back is in two of the steps, so this is not the share of such signs.
        back = f"{steps[-1] - total:.0%}: flips\nthat cancel out"
        axes.text(len(shares), (steps[-1] + total) / 2, back, ha="center", va="center", fontsize="small", color=GREY)
    axes.set(ylabel="share of the signs", ylim=(0, 1.08 * steps[-1] or 1))
    axes.yaxis.set_major_formatter("{x:.0%}")
    listed = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True))
    return figure.with_alt(
        f"Bar chart in steps: share of one layer's signs that changed in {listed}, together {steps[-1]:.0%}. "
        f"From start to end, only {total:.0%} differ."
    )


def flip_rates(rates: Mapping[str, torch.Tensor]) -> Figure:
    """Plot the mean share of the signs that a step flips, per epoch, on a logarithmic axis that reaches zero.

    Args:
        rates: By the name of the training, the share of the signs (0 to 1) that each step flipped, (epochs, steps).
    """
    figure, axes = new(7.6, 3.8)
    means = {name: rate.mean(1).tolist() for name, rate in rates.items()}
    for shade, values in zip(SHADES, means.values(), strict=False):
        axes.plot(range(1, len(values) + 1), values, "o-", color=shade, markersize=4)
    axes.set_yscale("symlog", linthresh=SMALLEST_RATE)
    axes.set(xlabel="epoch", ylabel="signs flipped per step", ylim=(-0.1 * SMALLEST_RATE, None))
    axes.set_yticks([0, 1e-4, 1e-3, 1e-2], ["0", "0.01 %", "0.1 %", "1 %"])
    axes.xaxis.get_major_locator().set_params(integer=True)
    _end_labels_on_scale(axes, [(values[-1], name) for name, values in means.items()])
    listed = ", ".join(f"{name} {values[-1]:.2%}" for name, values in means.items())
    return figure.with_alt(f"Line chart of the share of the signs that a step flips. In the last epoch: {listed}.")


def statistics_gap(stale: Mapping[str, torch.Tensor], fresh: Mapping[str, torch.Tensor]) -> Figure:
    """Plot how many points of accuracy a net gains when its BatchNorm statistics are measured anew.

    Args:
        stale: By the name of the net, the accuracy with running averages, from 0 to 1, (seeds, epochs).
        fresh: The accuracy of the same weights with statistics that were measured anew, of the same shape.
    """
    figure, axes = new(6.4, 3.4)
    told = []
    for number, name in enumerate(stale):
        gap = 100 * (fresh[name] - stale[name])
        mean, error = gap.mean(0), gap.std(0) / len(gap) ** 0.5 if len(gap) > 1 else torch.zeros(gap.shape[1])
        epochs = torch.arange(1, gap.shape[1] + 1) + 0.06 * number  # beside each other, so that no error bar is hidden
        axes.errorbar(epochs, mean, error, fmt="o-", color=colour(name), capsize=3, markersize=4, linewidth=1.3)
        told.append(f"{name} from {mean[0]:.1f} to {mean[-1]:.1f} points")
    axes.axhline(0, color="black", linewidth=1)
    axes.set(xlabel="epoch", ylabel="gain in points of accuracy")
    axes.xaxis.get_major_locator().set_params(integer=True)
    end_labels(axes, [(100 * (fresh[name] - stale[name]).mean(0)[-1].item(), name, colour(name)) for name in stale])
    return figure.with_alt(
        f"Gain in test accuracy from BatchNorm statistics that are measured anew, first to last epoch: "
        f"{', '.join(told)}. Error bars: one standard error over the seeds."
    )


def _draw_sign(axes: Axes, values: np.ndarray, scale: float, end: float) -> None:
    axes.plot([-end, 0], [-scale, -scale], color=NEGATIVE)
    axes.plot([0, end], [scale, scale], color=POSITIVE)
    axes.axvline(0, color="black", linestyle="--", linewidth=1)
    for value in values:
        shade, level = (POSITIVE, scale) if value >= 0 else (NEGATIVE, -scale)
        axes.plot([value, value], [0, level], ":", color=shade, linewidth=0.8)
        axes.plot(value, level, "o", color=shade, markersize=4)
    axes.annotate(f"$+s$ = {scale:.4f}", (-0.1, scale), ha="right", va="center", color=POSITIVE)
    axes.annotate(f"$-s$ = {-scale:.4f}", (0.1, -scale), ha="left", va="center", color=NEGATIVE)
    axes.annotate("threshold", (0, -1.75 * scale), (4, 0), textcoords="offset points", fontsize="small")
    axes.set(title="forward", xlabel="latent weight $w$", ylabel="$Q(w)$", ylim=(-2 * scale, 2 * scale))


def _draw_estimators(axes: Axes, clip: float, end: float) -> None:
    plain, clipping, true = POSITIVE, "#009E73", GREY
    axes.plot([-end, end], [1, 1], color=plain, linewidth=5, alpha=0.4)
    axes.plot([-end, end], [0, 0], color=true, linewidth=5, alpha=0.4)
    axes.plot([-end, -clip, -clip, clip, clip, end], [0, 0, 1, 1, 0, 0], color=clipping)
    for x, y, text, shade in (
        (0, 1.12, "straight-through: 1 everywhere", plain),
        (0, 0.5, f"clipping:\n1 up to $|w| = {clip:g}$", clipping),
        (0, -0.12, "true derivative: 0", true),
    ):
        axes.text(x, y, text, ha="center", va="center", color=shade)
    axes.set(title="backward", xlabel="latent weight $w$", ylabel="derivative used for the sign", ylim=(-0.3, 1.3))


def _flips(path: Sequence[float]) -> list[int]:
    """Return the steps after which the sign differs from the step before."""
    signs = np.asarray(path) >= 0
    return (np.flatnonzero(signs[1:] != signs[:-1]) + 1).tolist()


def _end_labels_on_scale(axes: Axes, ends: Sequence[tuple[float, str]]) -> None:
    """Label lines at their ends on an axis that is not linear: `end_labels` measures along a linear one."""
    low, high = axes.get_ylim()
    twin = axes.twinx()
    twin.axis("off")
    place = axes.yaxis.get_transform().transform
    bottom, top = place([low, high])
    twin.set_ylim(0, 1)
    shades = zip(ends, SHADES, strict=False)
    end_labels(twin, [((place([value])[0] - bottom) / (top - bottom), name, shade) for (value, name), shade in shades])
    axes.set_ylim(low, high)
