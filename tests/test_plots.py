import itertools
import statistics

import numpy as np
import pandas as pd
import pytest
import torch

from qathelpers import nets
from qathelpers.analysis import plots
from qathelpers.common.errors import CourseError
from qathelpers.nets import weights
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
    for line, (h, split) in zip(axes.lines, [(h, s) for h in histories for s in ("train", "test")], strict=False):
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
    net = nets.build("TernaryNN", "lenet")
    scale = weights.scale(weights.first_layer(net)).item()
    lines = sorted(line.get_xdata()[0] for line in plots.latent_weights(net).axes[0].lines)
    assert lines == pytest.approx([-scale, -scale / 2, 0, scale / 2, scale], abs=0.02 * scale)
    assert not plots.latent_weights(nets.build("PytorchNN")).axes[0].lines
    with pytest.raises(ValueError, match=r"'conv1'.*features\.0"):
        plots.latent_weights(nets.build("TernaryNN", "lenet"), "conv1")


def test_confusion_is_in_percent_of_the_true_class():
    labels, predictions = torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0, 0, 0, 1, 1])
    axes = plots.confusion(labels, predictions, ["cat", "dog"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["75", "25", "0", "100"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def ended(name, *accuracies, **config):
    """Return one run per accuracy in the last epoch, each with a seed of its own; the first epochs were better."""
    runs = [History({"name": name, "arch": "lenet", "data": "shapes", "seed": seed} | config) for seed in range(9)]
    for run, accuracy in zip(runs, accuracies, strict=False):
        for epoch, test_acc in enumerate((0.99, accuracy), start=1):
            run.append(epoch=epoch, train_loss=1, train_acc=1, test_loss=1, test_acc=test_acc, seconds=1)
    return runs[: len(accuracies)]


def test_end_points_show_each_seed_and_the_mean_with_its_error():
    figure = plots.end_points([*ended("BinaryNN", 0.7, 0.72, 0.77), *ended("PytorchNN", 0.9, 0.92)])
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [sorted(line.get_xdata()) for line in dots] == [[0.7, 0.72, 0.77], [0.9, 0.92]]
    assert [line.get_color() for line in dots] == [plots.colour("BinaryNN"), plots.colour("PytorchNN")]
    bars = [bar.get_segments()[0][:, 0] for bar in figure.axes[0].collections]
    deviation = statistics.stdev([0.7, 0.72, 0.77])
    assert bars[0] == pytest.approx([0.73 - deviation / 3**0.5, 0.73 + deviation / 3**0.5])
    assert bars[1] == pytest.approx([0.91 - 0.01, 0.91 + 0.01])


def test_end_points_are_sorted_and_named_at_the_best_seed():
    axes = plots.end_points([*ended("TernaryNN", 0.7, 0.9), *ended("Int4NN", 0.85), *ended("XnorNN", 0.1)]).axes[0]
    names = {text.get_text(): text.xy for text in axes.texts}
    assert names == {"XnorNN": (0.1, 0), "TernaryNN": (0.9, 1), "Int4NN": (0.85, 2)}
    assert len(axes.collections) == 1  # only one net has two seeds, and an error that can be known


def test_end_points_of_one_net_are_all_of_one_precision():
    runs = ended("Int2NN", 0.5, 0.6, evaluation="bf16")
    runs[0].config["test_acc"] = 0.55  # evaluated in fp32 later
    dots = plots.end_points(runs).axes[0].lines[0]
    assert sorted(dots.get_xdata()) == [0.5, 0.6]
    runs[1].config["test_acc"] = 0.65
    assert sorted(plots.end_points(runs).axes[0].lines[0].get_xdata()) == [0.55, 0.65]


@pytest.mark.parametrize(
    ("runs", "named"),
    [
        ([], "no end point"),
        ([History({"name": "BinaryNN", "arch": "lenet", "data": "shapes"})], "no end point"),
        ([*ended("BinaryNN", 0.5), *ended("TernaryNN", 0.5, data="cifar10")], "cifar10 and shapes"),
    ],
    ids=["nothing", "no epoch", "two data sets"],
)
def test_end_points_that_cannot_be_compared_are_refused(runs, named):
    with pytest.raises(CourseError, match=named):
        plots.end_points(runs)


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


def test_thresholds_lie_between_the_levels_and_only_there():
    latent = torch.tensor([-0.9, -0.4, 0.3, 0.8])
    lines = plots.latent_histogram(latent, torch.tensor([-1.0, -1.0, 1.0, 1.0])).axes[0].lines
    assert [line.get_xdata()[0] for line in lines] == pytest.approx([-1, 1, -0.05])
    overlapping = plots.latent_histogram(latent, torch.tensor([-1.0, 1.0, -1.0, 1.0])).axes[0].lines
    assert [line.get_xdata()[0] for line in overlapping] == pytest.approx([-1, 1])


def test_every_figure_describes_what_it_shows(images):
    table = pd.DataFrame({"test": [0.8], "kB": [70], "million BOPs": [500]}, index=["BinaryNN"])
    run, net = [history("BinaryNN")], nets.build("BinaryNN", "lenet")
    figures = {
        plots.accuracy(run): "0.700",
        plots.loss(run): "1.000",
        plots.curves(run): "0.700",
        plots.sizes(run): "12 kB",
        plots.costs(table): "70 kB",
        plots.end_points(ended("BinaryNN", 0.5, 0.6)): "BinaryNN 0.5500 (standard error 0.0500, 2 seeds)",
        plots.latent_weights(net): f"{weights.scale(weights.first_layer(net)).item():.4f}",
        plots.latent_over_epochs([torch.ones(9)], ["before"]): "before",
        plots.confusion(torch.tensor([0, 1]), torch.tensor([0, 0]), ["cat", "dog"]): "dog taken for cat, 100 %",
        plots.image_grid(images[:2], ["a", "b"]): "2 images",
    }
    for figure, detail in figures.items():
        assert detail in figure.alt


def test_labels_at_the_ends_of_lines_do_not_overlap():
    runs = [history(name) for name in list(plots.COLOURS)[:5]]  # all of them end at 0.7
    axes = plots.accuracy(runs).axes[0]
    heights = sorted(text.xy[1] for text in axes.texts)
    assert len(heights) == 5
    assert min(b - a for a, b in itertools.pairwise(heights)) > 0.04


def test_an_image_grid_shows_grey_images_from_black_to_white(images):
    (axes,) = plots.image_grid(images[:1, :1], ["a"], columns=1).axes
    (shown,) = axes.images
    assert shown.get_cmap().name == "gray" and shown.get_clim() == (0, 255)
