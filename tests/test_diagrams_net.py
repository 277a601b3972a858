import pytest

from qathelpers import nets
from qathelpers.analysis import diagrams, plots


@pytest.mark.parametrize(("arch", "classes"), [("convnet", 10), ("sharpnet", 4)])
def test_the_residual_net_has_the_channels_of_the_net(arch, classes):
    net = nets.build("PytorchNN", arch, classes=classes)
    figure = diagrams.residual_net(net)
    said = " ".join(text.get_text() for text in figure.axes[0].texts)
    for width in nets.architecture(arch).options["widths"]:
        assert f"{width} channels" in said and f"{width} and {width}" in figure.alt
    assert f"{net.stem[0].channels} channels" in said and f"{classes}\nlogits" in said


@pytest.mark.parametrize("arch", ["convnet", "sharpnet"])
def test_each_filter_of_the_stem_has_a_picture(arch):
    filters = nets.build("PytorchNN", arch).stem[0].filters
    figure = diagrams.stem_filters(filters)
    assert sum(bool(axes.images) for axes in figure.axes) == len(filters)
    assert str(len(filters)) in figure.alt


def test_a_mark_is_drawn_and_described():
    figure, axes = plots.new(3, 2)
    axes.plot([1, 2], [3, 4])
    marked = diagrams.mark(figure.with_alt("A line."), 2, 4, "the end")
    assert axes.texts[0].get_text() == "the end" and axes.texts[0].xy == (2, 4)
    assert marked.alt.startswith("A line.") and "the end" in marked.alt
