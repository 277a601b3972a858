import pytest
import torch

from qathelpers.analysis import diagrams


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize(("scale", "bits", "levels"), [(0.25, 3, 7), (1.0, 2, 3), (0.1, 4, 15)])
def test_the_number_line_has_a_threshold_half_way_between_levels(scale, bits, levels):
    figure = diagrams.number_line(scale, bits, [0.9 * scale])
    axes = figure.axes[0]
    assert list(axes.get_xticks()) == pytest.approx([scale * (i - levels // 2) for i in range(levels)])
    dashed = sorted(line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--")
    assert dashed == pytest.approx([scale * (i - levels // 2 + 0.5) for i in range(levels - 1)])
    assert str(levels) in figure.alt and f"goes to {scale:g}" in figure.alt


def test_the_number_line_clips():
    assert "goes to 0.75" in diagrams.number_line(0.25, 3, [1.1]).alt
    assert "goes to -0.75" in diagrams.number_line(0.25, 3, [-9.0]).alt


def test_the_training_of_one_weight_has_a_panel_per_run():
    figure = diagrams.one_weight({"a": ([0.1, 0.3], [0.0, 0.25]), "b": ([0.1, 0.2], [0.0, 0.25])}, target=0.6)
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    for axes in figure.axes:
        lines = [list(line.get_ydata()) for line in axes.lines]
        assert [0.0, 0.25] in lines and [0.6, 0.6] in lines
    assert "0.6" in figure.alt


@pytest.mark.parametrize(("rows", "columns", "group"), [(4, 8, 4), (3, 6, 2)])
def test_scale_sharing_counts_scales(rows, columns, group):
    figure = diagrams.scale_sharing(rows, columns, group)
    said = " ".join(texts(figure))
    assert "1 scale:" in said and f"{rows} scales:" in said and f"{rows * columns // group} scales:" in said
    assert f"{columns // group} colours in each row" in figure.alt


def test_the_dot_product_adds_up():
    x, w = torch.tensor([3, 0, 7, 2]), torch.tensor([-1, 1, 2, 0])
    figure = diagrams.integer_dot_product(x, w, 0.5, 0.25)
    said = texts(figure)
    assert str((x * w).sum().item()) in said
    assert f"{(x * 0.5 @ (w * 0.25)).item():g}" in said
