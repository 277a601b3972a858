import pytest
import torch

from qathelpers.analysis import diagrams
from qathelpers.analysis.figure import NEGATIVE, POSITIVE


def texts(axes):
    return [text.get_text() for text in axes.texts]


def dots(axes):
    return [line for line in axes.lines if line.get_marker() == "o"]


def test_the_sign_puts_every_weight_on_one_of_two_levels():
    figure = diagrams.sign_and_ste(torch.tensor([[0.5, -0.1], [0.3, -0.7]]), scale=0.4, clip=0.25)
    forward, backward = figure.axes
    points = {line.get_xdata()[0]: line for line in dots(forward)}
    assert sorted(points) == pytest.approx([-0.7, -0.1, 0.3, 0.5])
    for weight, line in points.items():
        assert line.get_ydata()[0] == (0.4 if weight > 0 else -0.4)
        assert line.get_color() == (POSITIVE if weight > 0 else NEGATIVE)
    plain, true, clipping = backward.lines
    assert set(plain.get_ydata()) == {1} and set(true.get_ydata()) == {0}
    passes = [x for x, y in zip(clipping.get_xdata(), clipping.get_ydata(), strict=True) if y == 1]
    assert passes == [-0.25, 0.25]
    assert "2 negative" in figure.alt and "0.25" in figure.alt


def test_dots_mark_the_steps_in_which_a_sign_flips():
    figure = diagrams.latent_paths({"returns": [-1, 1, 2, 1, -1], "stays": [-1, 0.5, 1, 1, 1]}, turn=2)
    marked = [list(line.get_xdata()) for line in dots(figure.axes[0])]
    assert marked == [[1, 4], [1]]
    assert {"returns", "stays"} <= set(texts(figure.axes[0]))
    assert "step 1 and 4" in figure.alt and "ends at -1.00" in figure.alt


def test_flips_of_the_epochs_are_stacked_beside_the_total():
    figure = diagrams.flips_per_epoch([0.4, 0.3], total=0.5)
    bars = [(bar.get_y(), bar.get_height()) for bar in figure.axes[0].patches]
    assert bars == [(0, 0.4), (0.4, 0.3), (0, 0.5)]
    assert {"40%", "30%", "50%"} <= set(texts(figure.axes[0]))
    assert any(text.startswith("20%") for text in texts(figure.axes[0]))
    assert "together 70%" in figure.alt
    assert not any("cancel" in text for text in texts(diagrams.flips_per_epoch([0.4], total=0.4).axes[0]))


def test_flip_rates_are_means_per_epoch_and_may_be_zero():
    rates = {"trains": torch.tensor([[0.01, 0.03], [0.02, 0.0]]), "broken": torch.zeros(2, 2)}
    figure = diagrams.flip_rates(rates)
    lines = {line.get_ydata()[-1]: line for line in dots(figure.axes[0])}
    assert list(lines[0].get_ydata()) == [0, 0]
    assert next(line for end, line in lines.items() if end).get_ydata() == pytest.approx([0.02, 0.01])
    low, high = figure.axes[0].get_ylim()
    assert low < 0 and high > 0.02
    places = {text.get_text(): text.xy[1] for axes in figure.axes for text in axes.texts}
    assert places["broken"] < 0.2 < places["trains"]
    assert "trains 1.00%" in figure.alt and "broken 0.00%" in figure.alt


def test_the_gap_is_in_points_with_one_standard_error():
    stale = {"BinaryNN": torch.tensor([[0.40, 0.5], [0.42, 0.5]])}
    fresh = {"BinaryNN": torch.tensor([[0.46, 0.5], [0.50, 0.5]])}
    figure = diagrams.statistics_gap(stale, fresh)
    (container,) = figure.axes[0].containers
    assert container.lines[0].get_ydata() == pytest.approx([7, 0], abs=1e-3)
    (bars,) = container.lines[2]
    ends = [segment[:, 1] for segment in bars.get_segments()]
    assert ends[0] == pytest.approx([6, 8], abs=1e-3)  # 6 and 8 points: their standard error is 1
    assert "from 7.0 to 0.0 points" in figure.alt


def test_one_seed_has_no_error_bar():
    one = {"BinaryNN": torch.tensor([[0.4, 0.5]])}
    (container,) = diagrams.statistics_gap(one, one).axes[0].containers
    assert all((segment[0] == segment[1]).all() for segment in container.lines[2][0].get_segments())
