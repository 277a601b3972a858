import numpy as np
import pandas as pd
import pytest

from qathelpers.analysis.diagrams import bits
from qathelpers.analysis.figure import colour

PATCH = np.array([[1, -1, -1], [1, 1, 1], [-1, 1, -1]])
KERNEL = np.array([[1, 1, -1], [-1, 1, -1], [-1, 1, 1]])
INSIDE = np.array([[0, 0, 0], [0, 1, 1], [0, 1, 1]], bool)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def place(figure, wanted):
    return next(text.get_position() for text in figure.axes[0].texts if text.get_text() == wanted)


def test_packed_bytes_add_up():
    figure = bits.packed_bytes([-1, 1, -1, -1, -1, 1, -1, 1], [1, -1, 0, 0, 1])
    shown = " ".join(texts(figure))
    assert "162" in shown and "10100010" in shown and "200" in shown and "2·1 + 1·9 + 1·27 + 2·81" in shown
    assert texts(figure).count("+1") == 3 + 2
    assert "162" in figure.alt and "200" in figure.alt
    assert place(figure, "128") > place(figure, "64") and place(figure, "128")[0] < place(figure, "81")[0]
    assert "0, the byte 00000000" in " ".join(texts(bits.packed_bytes([-1] * 8, [-1] * 5)))


@pytest.mark.parametrize(
    ("signs", "trits", "name"), [([1] * 7, [0] * 5, "signs"), ([0] * 8, [0] * 5, "signs"), ([1] * 8, [2] * 5, "trits")]
)
def test_bytes_of_other_weights_are_refused(signs, trits, name):
    with pytest.raises(ValueError, match=name):
        bits.packed_bytes(signs, trits)


def test_xnor_counts_the_places_that_differ():
    figure = bits.xnor_patch(PATCH, KERNEL)
    assert any("popcount = 4" in text and "9 − 2 · 4 = 1" in text for text in texts(figure))
    assert "9 - 2 x 4 = 1" in figure.alt
    left = [place(figure, title)[0] for title in ("signs of the patch", "signs of the kernel", "differ: XOR")]
    assert left == sorted(left)
    assert "popcount = 0" in " ".join(texts(bits.xnor_patch(PATCH, PATCH)))


def test_the_corner_is_wrong_without_a_mask():
    figure = bits.padded_corner(PATCH, INSIDE, KERNEL)
    expected = int((np.where(INSIDE, PATCH, 0) * KERNEL).sum())
    wrong = int((np.where(INSIDE, PATCH, -1) * KERNEL).sum())
    shown = texts(figure)
    assert f"dot product {expected}" in shown and shown.count("×") == 5
    assert any(text.endswith(f"= {wrong}  (wrong)") for text in shown)
    assert any(text.startswith("4 − 2 ·") and text.endswith(f"= {expected}") for text in shown)
    assert f"becomes {wrong}" in figure.alt


def test_without_padding_nothing_is_wrong():
    shown = texts(bits.padded_corner(PATCH, np.ones((3, 3), bool), KERNEL))
    assert not any("wrong" in text for text in shown) and "×" not in shown


def test_other_numbers_are_refused():
    with pytest.raises(ValueError, match="patch"):
        bits.xnor_patch(PATCH * 2, KERNEL)
    with pytest.raises(ValueError, match="equal"):
        bits.xnor_patch(PATCH, KERNEL[:2])
    with pytest.raises(ValueError, match="same shape"):
        bits.padded_corner(PATCH, INSIDE[:2], KERNEL)


def test_operations_stand_beside_times():
    numbers = {"million BOPs": [920.0, 24.1], "ms per image": [0.12, 0.08], "net": ["Int8NN", "XnorNN"]}
    table = pd.DataFrame(numbers, index=["int8", "W1A1"])
    figure = bits.operations_and_time(table)
    left, right = figure.axes
    assert left.get_xscale() == right.get_xscale() == "log"
    assert [line.get_xdata()[0] for line in left.lines] == [920, 24.1]
    assert [line.get_xdata()[0] for line in right.lines] == [0.12, 0.08]
    assert [line.get_color() for line in left.lines] == [colour("Int8NN"), colour("XnorNN")]
    assert "W1A1 24.1 and 0.08 ms" in figure.alt
