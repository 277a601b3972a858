import pytest
import torch

from qathelpers.analysis import diagrams
from qathelpers.analysis.figure import NEGATIVE, POSITIVE, ZERO


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_thresholds_lie_at_half_of_each_scale():
    latent = torch.tensor([[-0.9, -0.3], [0.1, 0.6], [0.2, -0.2]])
    figure = diagrams.three_levels(latent, {"small": 0.3, "large": 1.0})
    for axes, scale, zeros in zip(figure.axes, (0.3, 1.0), ("17%", "67%"), strict=True):
        dashed = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
        solid = {line.get_color(): line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "-"}
        assert dashed == pytest.approx([-scale / 2, scale / 2])
        assert solid == pytest.approx({NEGATIVE: -scale, ZERO: 0, POSITIVE: scale})
        assert zeros in axes.get_title() and zeros in figure.alt
        low, high = axes.get_xlim()
        assert low < -scale and scale < high


def test_changes_of_level_are_shares_of_all_weights():
    old = torch.tensor([-1, -1, 0, 0, 0, 1, 1, 1])
    new = torch.tensor([-1, 0, 0, 1, 1, 1, 1, -1])
    figure = diagrams.level_changes(old, new)
    said = texts(figure.axes[0])
    assert [text.splitlines()[-1] for text in said if "stay" in text] == ["12% stay", "12% stay", "25% stay"]
    assert sorted(text for text in said if text.endswith("%")) == ["0.0%", "0.0%", "0.0%", "12.5%", "12.5%", "25.0%"]
    assert "-1 to +0: 12.5%" in figure.alt and "+1 to -1: 12.5%" in figure.alt and "+0 to +1: 25.0%" in figure.alt


def test_thicker_arrows_for_more_weights():
    old, new = torch.tensor([0, 0, 0, -1]), torch.tensor([1, 1, 1, 0])
    axes = diagrams.level_changes(old, new).axes[0]
    widths = sorted(text.arrow_patch.get_linewidth() for text in axes.texts if getattr(text, "arrow_patch", None))
    assert len(widths) == 6
    assert widths[0] == widths[3] < widths[4] < widths[5]


def test_the_error_is_marked_where_nets_were_trained():
    accuracies = torch.tensor([[0.5, 0.52], [0.6, 0.6]])
    figure = diagrams.error_and_accuracy([0.5, 1.0, 1.5, 2.0], [0.8, 0.4, 0.2, 0.3], accuracies, [1.0, 2.0])
    left, right = figure.axes
    marked = {line.get_xdata()[0]: line.get_ydata()[0] for line in left.lines if line.get_marker() == "o"}
    assert marked == pytest.approx({1.0: 0.4, 2.0: 0.3})
    assert any("1.5" in text for text in texts(left))
    (container,) = right.containers
    assert list(container.lines[0].get_ydata()) == pytest.approx([0.51, 0.6])
    segment = container.lines[2][0].get_segments()[0][:, 1]
    assert segment == pytest.approx([0.50, 0.52])  # 0.50 and 0.52: their standard error is 0.01
    assert "smallest at 1.5" in figure.alt and "0.510 with a standard error of 0.010" in figure.alt


def test_a_chain_shows_where_nothing_passes():
    layers = [diagrams.Signals("conv", 0.25, 0.0, 0.0), diagrams.Signals("dead", 0.0, 0.03, 0.5)]
    figure = diagrams.dead_chains({"alone": layers, "ReLU": [*layers, diagrams.Signals("ReLU", 0.0, 0.02)]})
    (axes,) = figure.axes
    said = texts(axes)
    assert {"alone", "conv", "dead", "0.2", "0.03", "0.02", "weights' gradient 0.5"} <= set(said)
    assert said.count("weights' gradient 0") == 2  # the ReLU has no weights
    assert "alone: conv 0, dead 0.5" in figure.alt
    arrows = [text.arrow_patch for text in axes.texts if getattr(text, "arrow_patch", None)]
    assert sum(patch.get_linestyle() == "--" for patch in arrows) == 5  # one for each zero among outputs and gradients
