import numpy as np
import pandas as pd
import pytest

from qathelpers.analysis import diagrams
from qathelpers.analysis.figure import Figure
from qathelpers.deploy import integer_reference


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def layer(total=-412):
    return diagrams.integer_layer([3, 0, 15, 7, 1, 9], [-2, 7, 1, 0, -3, 4], total, 1_853_209, 77_777, 27, 4)


def registers(bits=8):
    sums = np.array([-300, -5, 0, 5, 100, 127, 128, 1000])
    return diagrams.wrap_and_saturate(bits, sums, integer_reference.wrap, integer_reference.saturate)


def table(*shares):
    return pd.DataFrame({"share": shares}, index=["whiten", "blocks.0", "head"])


FIGURES = {
    "integer_layer": layer,
    "multiply_and_shift": lambda: diagrams.multiply_and_shift(1234, 173, 14),
    "wrap_and_saturate": registers,
    "sign_thresholds": lambda: diagrams.sign_thresholds({"up": (0.5, -1)}, -9, 9),
    "block_in_integers": diagrams.block_in_integers,
    "where_they_differ": lambda: diagrams.where_they_differ({"right": table(0, 0, 0)}),
}


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES)
def test_every_diagram_has_an_alternative_text_and_can_be_drawn(make):
    figure = make()
    assert isinstance(figure, Figure) and len(figure.alt) > 40
    assert figure.png().startswith(b"\x89PNG")


def test_the_layer_shows_its_numbers():
    shown = " ".join(texts(layer()))
    assert all(part in shown for part in ("-412", "1,853,209", "77,777", "27", "15", "6 levels"))
    assert "-413" in layer(-413).alt


def test_the_product_is_split_at_the_binary_point():
    figure = diagrams.multiply_and_shift(1234, 173, 14)
    shown = texts(figure)
    digits = "".join(text for text in shown if text in ("0", "1"))
    product = 1234 * 173 + 2**13
    assert int(digits, 2) == product
    (line,) = figure.axes[0].lines
    cells = figure.axes[0].patches
    left_of_the_point = [cell for cell in cells if cell.get_x() < line.get_xdata()[0] - 0.01]
    assert len(cells) - len(left_of_the_point) == 14
    assert f"kept: {product >> 14}" in shown


def test_registers_are_those_of_the_functions_that_are_passed():
    figure = registers(8)
    for line, function in zip(figure.axes[0].lines, (integer_reference.wrap, integer_reference.saturate), strict=True):
        x, y = (np.asarray(values) for values in line.get_data())
        drawn = ~np.isnan(y)
        assert x[0] == -1000 and x[-1] == 1000
        assert (y[drawn] == function(x, 8)[drawn]).all() and drawn.sum() > 1900
    assert "37.50%" in figure.alt  # three of eight sums do not fit


def test_thresholds_are_where_the_lines_cross_zero():
    figure = diagrams.sign_thresholds({"up": (0.5, -1), "down": (-0.25, -1)}, -9, 9)
    upright = [line.get_xdata()[0] for line in figure.axes[0].lines if len(set(line.get_xdata())) == 1]
    assert upright == [2, -4]
    assert texts(figure) == ["up: +1 where $S$ ≥ 2", "down: +1 where $S$ ≤ -4"]


def test_the_unit_of_fixed_point_numbers_is_the_one_that_is_passed():
    assert any("{-12}" in text for text in texts(diagrams.block_in_integers(12)))
    assert not any("{-12}" in text for text in texts(diagrams.block_in_integers(20)))


def test_differences_are_drawn_per_layer_and_the_alternative_text_names_where_they_start():
    figure = diagrams.where_they_differ({"right": table(0, 0, 1e-4), "broken": table(0, 0.5, 1)})
    right, broken = figure.axes[0].lines
    assert broken.get_ydata().tolist()[1:] == [0.5, 1] and right.get_ydata()[2] == 1e-4
    assert 0 < right.get_ydata()[0] < 1e-6
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["whiten", "blocks.0", "head"]
    assert "broken: more than 1 % from blocks.0 on" in figure.alt and "right: at most" in figure.alt
