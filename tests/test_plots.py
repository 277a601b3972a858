import numpy as np
import pandas as pd
import pytest
import torch

from qathelpers import nets
from qathelpers.analysis import plots
from qathelpers.training.history import History


def history(name, data="shapes"):
    result = History(config={"name": name, "arch": "lenet", "data": data, "kB": 12.5})
    for epoch in (1, 2):
        result.append(epoch=epoch, train_loss=1, train_acc=0.6, test_loss=1, test_acc=0.5 + 0.1 * epoch, seconds=30)
    return result


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
    assert "not CIFAR-10" not in draw([history("BinaryNN", "cifar10")]).axes[0].get_title()


def test_nets_differ_in_colour_and_variants_do_not():
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
    assert plots.colour("BinaryNN-8bit-first-last") == plots.colour("BinaryNN") != plots.colour("Mine")
    assert set(plots.COLOURS) == {name for name in nets.SCHEMES if "-" not in name}


def test_latent_weights_are_shown_with_their_levels():
    figure = plots.latent_weights(nets.build("TernaryNN", "lenet"))
    assert len(figure.axes[1].collections[0].get_segments()) == 3
    assert len(plots.latent_weights(nets.build("PytorchNN")).axes) == 1
    with pytest.raises(ValueError, match=r"'conv1'.*features\.0"):
        plots.latent_weights(nets.build("TernaryNN", "lenet"), "conv1")


def test_confusion_is_in_percent_of_the_true_class():
    labels, predictions = torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0, 0, 0, 1, 1])
    axes = plots.confusion(labels, predictions, ["cat", "dog"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["75", "25", "0", "100"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_figures_are_saved(tmp_path):
    path = plots.save(plots.accuracy([history("BinaryNN")]), tmp_path / "new" / "a.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_snapshots_of_latent_weights_share_their_axes():
    figure = plots.latent_over_epochs([torch.randn(9), 5 * torch.randn(9)], ["before", "after"], "BinaryNN")
    assert [axes.get_title() for axes in figure.axes] == ["before", "after"]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_costs_have_one_point_per_net():
    table = pd.DataFrame(
        {"test": [0.8, 0.7], "kB": [2000, 70], "million BOPs": [15000, 500]}, index=["PytorchNN", "BinaryNN"]
    )
    left, right = plots.costs(table).axes
    assert [line.get_xdata()[0] for line in left.lines] == [2000, 70]
    assert [line.get_ydata()[0] for line in right.lines] == [0.8, 0.7]
    assert [line.get_color() for line in right.lines] == [plots.colour("PytorchNN"), plots.colour("BinaryNN")]


def test_sizes_leave_out_runs_without_a_size():
    with_size, without = history("BinaryNN"), history("TernaryNN")
    del without.config["kB"]
    lines = plots.sizes([with_size, without]).axes[0].lines
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines] == [(12.5, 0.7)]


def test_an_image_grid_has_one_cell_per_image(images):
    figure = plots.image_grid(images[:3], ["a", "b", "c"], columns=2)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c"]
    for axes, image in zip(figure.axes, images, strict=False):
        assert np.array_equal(axes.images[0].get_array(), image.permute(1, 2, 0))
