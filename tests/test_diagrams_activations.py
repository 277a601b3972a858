"""Diagrams of activations: what is drawn follows the data, and every figure has an alternative text."""

import pytest
import torch
from matplotlib.patches import Rectangle

from qathelpers.analysis import diagrams
from qathelpers.analysis.figure import Figure
from qathelpers.common.errors import CourseError

COUNTS = {"sign 1": 2, "convolution 1": 219, "sign 2": 2, "convolution 2": 140}


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def cell_count(figure: Figure) -> int:
    return sum(isinstance(patch, Rectangle) for patch in figure.axes[0].patches)


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Return the pairs of texts that are drawn over each other."""
    figure.canvas.draw()
    boxes = [
        (text.get_text(), text.get_window_extent()) for axes in figure.axes for text in axes.texts if text.get_text()
    ]
    return [(a, b) for i, (a, one) in enumerate(boxes) for b, other in boxes[i + 1 :] if one.overlaps(other)]


def test_block_shows_the_counted_and_the_possible_values() -> None:
    figure = diagrams.w1a1_block(64, 48, COUNTS)
    shown = " ".join(texts(figure))
    for number in ("577", "219", "433", "140"):  # 9 x 64 + 1 and 9 x 48 + 1 are possible
        assert number in shown
        assert number in figure.alt
    assert not overlaps(figure)


def test_block_refuses_to_draw_without_a_count() -> None:
    with pytest.raises(KeyError, match="convolution 2"):
        diagrams.w1a1_block(64, 48, {key: COUNTS[key] for key in ("sign 1", "convolution 1", "sign 2")})


def test_thermometer_has_one_column_of_signs_per_interval() -> None:
    figure = diagrams.thermometer([0.3, 1.0])
    assert cell_count(figure) == 5 * 4  # five intervals, four signs
    signs = [text for text in texts(figure) if text in ("+", "\N{MINUS SIGN}")]
    assert signs.count("+") == 2 + 1 + 0 + 1 + 2
    assert figure.alt
    assert not overlaps(figure)


def test_thermometer_codes_differ_from_interval_to_interval() -> None:
    alt = diagrams.thermometer([0.15, 0.5, 1.1]).alt
    codes = alt.rpartition(": ")[2].rstrip(".").split(", ")
    assert len(codes) == len(set(codes)) == 7
    assert codes[0] == codes[-1][3:] + codes[-1][:3]  # r and -r change places


@pytest.mark.parametrize("thresholds", [[], [0.0, 1.0], [1.0, 0.3], [0.3, 0.3]])
def test_thermometer_refuses_thresholds_out_of_order(thresholds: list[float]) -> None:
    with pytest.raises(CourseError):
        diagrams.thermometer(thresholds)


@pytest.mark.parametrize(
    ("weight", "activation", "weight_bits", "activation_bits"), [(5, 11, 3, 4), (1, 1, 1, 1), (0, 3, 2, 2)]
)
def test_bit_products_add_up_to_the_product(
    weight: int, activation: int, weight_bits: int, activation_bits: int
) -> None:
    figure = diagrams.bit_products(weight, activation, weight_bits, activation_bits)
    rows: dict[float, list[tuple[float, int]]] = {}
    size = 0.36
    for text in figure.axes[0].texts:
        if text.get_text() in ("0", "1"):
            x, y = text.get_position()
            rows.setdefault(round(y, 3), []).append((x, int(text.get_text())))
    ordered = [sorted(rows[y]) for y in sorted(rows, reverse=True)]
    right = ordered[0][-1][0]  # the place of the lowest bit

    def value(row: list[tuple[float, int]]) -> int:
        return sum(bit << round((right - x) / size) for x, bit in row)

    factor, *partial, total = ordered
    assert value(factor) == activation
    partial = [row[1:] for row in partial]  # each row starts with its bit of the weight
    assert sum(map(value, partial)) == value(total) == weight * activation
    assert sum(map(len, partial)) == weight_bits * activation_bits
    assert str(weight_bits * activation_bits) in figure.alt
    assert not overlaps(figure)


@pytest.mark.parametrize(("factors", "name"), [((8, 1, 3, 4), "weight"), ((1, -1, 3, 4), "activation")])
def test_bit_products_name_the_factor_that_does_not_fit(factors: tuple[int, int, int, int], name: str) -> None:
    with pytest.raises(CourseError, match=name):
        diagrams.bit_products(*factors)


def test_forward_and_gradient_draws_both_curves_with_gaps_at_the_steps() -> None:
    x = torch.linspace(-2, 2, 41)
    output, gradient = torch.where(x < 0, -1.0, 1.0), (x.abs() <= 1).float()
    figure = diagrams.forward_and_gradient(x, output, gradient, "sign($x$)", r"$\partial L / \partial x$")
    for axes, values in zip(figure.axes, (output, gradient), strict=True):
        drawn = torch.as_tensor(axes.lines[0].get_ydata())
        gaps = drawn.isnan()
        assert torch.equal(drawn[~gaps], values[~gaps])
        assert gaps.sum() == (values.diff() != 0).sum()
    assert "$" not in figure.alt
    assert "-1, 1" in figure.alt
