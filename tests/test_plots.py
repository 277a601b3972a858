import numpy as np
import pandas as pd
import pytest
import torch

from qathelpers import nets, plots
from tests.test_results import history


@pytest.mark.parametrize(("draw", "column"), [(plots.accuracy, "acc"), (plots.loss, "loss")])
def test_curves_show_train_and_test_of_each_net_in_its_colour(draw, column):
    histories = [history("TernaryNN"), history("BinaryNN")]
    axes = draw(histories).axes[0]
    assert len(axes.lines) == 4
    for line, (h, split) in zip(axes.lines, [(h, s) for h in histories for s in ("train", "test")], strict=True):
        assert np.array_equal(line.get_ydata(), h[f"{split}_{column}"])
        assert line.get_color() == plots.COLOURS[h.name]
    assert "not CIFAR-10" in axes.get_title()
    assert axes.get_xlabel() == "epoch"


def test_colours_differ_and_variants_share_theirs():
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
    assert plots.colour("BinaryNN-8bit-ends") == plots.colour("BinaryNN") != plots.colour("Mine")
    assert set(plots.COLOURS) == {name for name in nets.SCHEMES if "-" not in name}


def test_latent_weights_with_their_levels():
    figure = plots.latent_weights(nets.build("TernaryNN", "lenet"))
    assert len(figure.axes[1].collections[0].get_segments()) == 3
    assert len(plots.latent_weights(nets.build("PytorchNN")).axes) == 1
    with pytest.raises(ValueError, match=r"quantized ones: features\.0"):
        plots.latent_weights(nets.build("TernaryNN", "lenet"), "conv1")


def test_confusion_counts_in_percent_of_a_row():
    labels, guesses = torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0, 0, 0, 1, 1])
    axes = plots.confusion(labels, guesses, ["cat", "dog"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["75", "25", "0", "100"]


def test_figures_are_saved(tmp_path):
    path = plots.save(plots.accuracy([history("BinaryNN")]), tmp_path / "new" / "a.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_snapshots_of_latent_weights_share_their_axes():
    figure = plots.latent_over_epochs([torch.randn(9), 5 * torch.randn(9)], ["before", "after"], "BinaryNN")
    assert [axes.get_title() for axes in figure.axes] == ["before", "after"]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_costs_are_drawn_against_accuracy_a_point_a_net():
    table = pd.DataFrame(
        {"test": [0.8, 0.7], "kB": [2000, 70], "million bit operations": [15000, 500]}, index=["PytorchNN", "BinaryNN"]
    )
    left, right = plots.costs(table).axes
    assert [line.get_xdata()[0] for line in left.lines] == [2000, 70]
    assert [line.get_ydata()[0] for line in right.lines] == [0.8, 0.7]
    assert [line.get_color() for line in right.lines] == [plots.colour("PytorchNN"), plots.colour("BinaryNN")]
