"""LeNet, the architecture of the original experiment."""

import torch
from torch import nn

from ..common.errors import CourseError
from .schemes import Scheme


class LeNet(nn.Module):
    """Two convolutions and three linear layers: 62 thousand weights.

    Trained as in the original experiment, without augmentation, the float net memorizes its training images.

    Args:
        scheme: How weights and activations are quantized.
        classes: Number of classes.
        image_size: Height and width of the images in pixels, at least 16.
        channels: Number of channels of the images, 3 (RGB) or 1 (grey).
    """

    def __init__(self, scheme: Scheme, classes: int = 10, image_size: int = 32, channels: int = 3) -> None:
        super().__init__()
        side = ((image_size - 4) // 2 - 4) // 2  # after two convolutions and two poolings
        if side < 1:
            raise CourseError(f"image_size is {image_size}: LeNet needs images of at least 16 x 16 pixels.")
        self.features = nn.Sequential(
            scheme.conv(channels, 6, 5, first_or_last=True),
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
            scheme.linear(16 * side**2, 120),
            nn.BatchNorm1d(120),
            scheme.act(),
            scheme.linear(120, 84),
            nn.BatchNorm1d(84),
            scheme.act(),
            scheme.linear(84, classes, first_or_last=True),
            nn.BatchNorm1d(classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes) for normalized images (n, channels, image_size, image_size)."""
        return self.classifier(self.features(images))
