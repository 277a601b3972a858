"""The settings of a weight quantizer, what they do to weights, and a few settings that are worth a look."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Setting:
    """The settings of a weight quantizer.

    Args:
        bits: Number of bits; 1 means that only the signs remain.
        factor: The scale is `factor` times the magnitude that `base` names.
        base: "mean" for the mean magnitude of the weights; "largest" for a scale at which the highest integer stands
            for the largest magnitude.
        threshold: Weights whose magnitude is below `threshold` scales become 0.
        narrow: Whether to leave out the lowest integer, so that the levels are symmetric around 0.
        per_channel: Whether each output channel has a scale of its own.
    """

    bits: int = 2
    factor: float = 1.0
    base: str = "mean"
    threshold: float = 0.5
    narrow: bool = True
    per_channel: bool = False

    @property
    def highest(self) -> int:
        """The highest integer."""
        return max(2 ** (self.bits - 1) - 1, 1)

    @property
    def lowest(self) -> int:
        """The lowest integer."""
        return -self.highest if self.narrow or self.bits == 1 else -self.highest - 1

    def scale(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the scale(s) of `weight` (outputs, ...), shaped so that `weight / scale` broadcasts."""
        rows = weight.flatten(1) if self.per_channel else weight.flatten().unsqueeze(0)
        magnitude = rows.abs().mean(1) if self.base == "mean" else rows.abs().amax(1) / self.highest
        return (self.factor * magnitude.clamp_min(1e-10)).view(-1, *[1] * (weight.ndim - 1))

    def integers(self, scaled: torch.Tensor) -> torch.Tensor:
        """Return the integers that `scaled` (weights divided by their scale) is rounded to."""
        if self.bits == 1:
            return torch.where(scaled < 0, -1.0, 1.0)
        rounded = scaled.sign() * scaled.abs().round().clamp_min(1)
        return torch.where(scaled.abs() < self.threshold, 0.0, rounded.clamp(self.lowest, self.highest))

    def passes(self, scaled: torch.Tensor) -> torch.Tensor:
        """Return where the straight-through gradient passes: at the weights that are not clipped."""
        return (scaled >= self.lowest - 0.5) & (scaled <= self.highest + 0.5)

    def error(self, weight: torch.Tensor) -> float:
        """Return the squared error of the quantized weights, relative to the squared weights."""
        scale = self.scale(weight)
        return relative_error(weight, self.integers(weight / scale) * scale)


def relative_error(weight: torch.Tensor, quantized: torch.Tensor) -> float:
    """Return the sum of the squared errors, relative to that of the squared weights; 0 if all weights are 0."""
    whole = weight.square().sum().item()
    return (quantized - weight).square().sum().item() / whole if whole else 0.0


# What a button sets, and what to look at then. The sentences hold for every layer.
PRESETS: dict[str, tuple[Setting, str]] = {
    "sign, mean": (
        Setting(bits=1),
        "Only the signs remain, so there are two levels and no zeros. Weights near 0 move the furthest.",
    ),
    "ternary 0.5": (
        Setting(bits=2, threshold=0.5),
        "This is ordinary rounding: weights below half a scale become 0. Look at the share of zeros.",
    ),
    "ternary 0.7": (
        Setting(bits=2, threshold=0.7),
        "A higher threshold makes more zeros. Compare the error and the zeros with those of ternary 0.5.",
    ),
    "3 levels, largest": (
        Setting(bits=2, base="largest"),
        "The scale is the largest magnitude instead of the mean. Nothing is clipped, but far more weights become 0.",
    ),
    "4 bits, largest": (
        Setting(bits=4, base="largest"),
        "Nothing is clipped, so the gradient passes everywhere. But one large weight sets the step for all weights.",
    ),
    "8 bits, largest": (
        Setting(bits=8, base="largest"),
        "Nothing is clipped, and the steps are hardly visible. Compare the error with that of 4 bits.",
    ),
}
