import pytest
import torch

from qathelpers.common.errors import CourseError
from qathelpers.nets import SCHEMES, ConvNet

SHARP = {"patch": 2, "stride": 1, "pools": (2, 2, 2)}


@pytest.mark.parametrize("name", ["PytorchNN", "XnorNN"])
@pytest.mark.parametrize(
    ("options", "side", "sides"),
    [
        ({"widths": (8, 16, 24)}, 32, [16, 8, 4, 4]),
        ({"widths": (8, 16, 24)}, 16, [8, 4, 2, 2]),
        ({"widths": (8, 16, 24), **SHARP}, 32, [31, 15, 7, 3]),
        ({"widths": (8, 16, 24), **SHARP}, 16, [15, 7, 3, 1]),
        ({"widths": (8, 16), "patch": 2, "stride": 2, "pools": (4, 1), "classes": 7}, 32, [16, 4, 4]),
        ({"widths": (8, 8, 8, 16), "stride": 1, "pools": (2, 2, 1, 1)}, 32, [31, 15, 7, 7, 7]),
        ({"widths": (8, 16, 24), "channels": 1}, 28, [14, 7, 3, 3]),
        ({"widths": (8, 16, 24), "channels": 1, **SHARP}, 28, [27, 13, 6, 3]),
    ],
)
def test_the_options_decide_the_shapes(name, options, side, sides):
    net = ConvNet(SCHEMES[name], **options)
    images = torch.randn(4, options.get("channels", 3), side, side)
    features, shapes = net.stem(images), []
    channels = features.shape[1]
    for block in (None, *net.blocks):
        features = block(features) if block else features
        shapes.append(tuple(features.shape))
    assert shapes == [(4, width, s, s) for width, s in zip((channels, *options["widths"]), sides, strict=True)]
    assert net(images).shape == (4, options.get("classes", 10))


def test_widths_and_pools_of_different_lengths_are_refused():
    with pytest.raises(CourseError, match=r"widths.*pools"):  # else, the net would silently lack a block
        ConvNet(SCHEMES["PytorchNN"], widths=(8, 16), pools=(2, 2, 1))
