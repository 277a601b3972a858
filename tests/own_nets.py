"""A scheme and an architecture as a reader would write them."""

import torch

from qathelpers import nets
from qathelpers.nets import weights

TERNARY, BINARY = nets.quantizers.TernaryWeight, nets.quantizers.BinaryWeight
MINE = nets.Scheme("MyNN", "W1A32", BINARY, None, BINARY)


class OwnNet(torch.nn.Sequential):
    """A net of a reader: a plain class that takes a scheme."""

    def __init__(self, scheme, classes=10):
        super().__init__(
            scheme.conv(3, 8, 5, first_or_last=True, stride=4),
            torch.nn.BatchNorm2d(8),
            scheme.act(),
            torch.nn.Flatten(),
            scheme.linear(8 * 7 * 7, classes),
        )


def own_net(name="BinaryNN", arch="own", **options):
    return nets.build(name, arch, **options)


def broken(net):
    torch.nn.init.constant_(weights.first_layer(net).weight, float("nan"))
    return net
