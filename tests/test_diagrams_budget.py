import pandas as pd

from qathelpers.analysis import diagrams


def test_each_net_has_a_curve_and_the_budget_a_line():
    table = pd.DataFrame({"PytorchNN": [10, 40, 160], "BinaryNN": [1, 4, 16]}, index=pd.Index([1, 2, 4], name="w"))
    figure = diagrams.kilobytes_against_width(table, 40)
    lines = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert [10, 40, 160] in lines and [1, 4, 16] in lines and [40, 40] in lines
    assert "PytorchNN 2" in figure.alt and "BinaryNN 4" in figure.alt
    assert {"PytorchNN", "BinaryNN", "40 kB"} <= {text.get_text() for text in figure.axes[0].texts}
    assert "PytorchNN none" in diagrams.kilobytes_against_width(table, 5).alt
