"""LeNet, the architecture of the original experiment."""

import torch
from torch import nn

from .schemes import Scheme


class LeNet(nn.Module):
    """Two convolutions and three linear layers: 62 thousand weights.

    Trained as in the original experiment, without augmentation, the float net memorizes its training images.

    Args:
        scheme: How weights and activations are quantized.
        classes: Number of classes.
    """

    def __init__(self, scheme: Scheme, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            scheme.conv(3, 6, 5, first_or_last=True),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(6),
            scheme.act(),
            scheme.conv(6, 16, 5),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(16),
            scheme.act(),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            scheme.linear(16 * 5 * 5, 120),
            nn.BatchNorm1d(120),
            scheme.act(),
            scheme.linear(120, 84),
            nn.BatchNorm1d(84),
            scheme.act(),
            scheme.linear(84, classes, first_or_last=True),
            nn.BatchNorm1d(classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes) for normalized images (n, 3, 32, 32)."""
        return self.classifier(self.features(images))
