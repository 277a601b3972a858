"""The plots of the course: curves and costs of runs, weights, images. `diagrams` has the drawings of mechanisms."""

from ..figure import COLOURS, Figure, colour, new
from .comparison import end_points
from .curves import accuracy, costs, curves, loss, sizes
from .images import confusion, image_grid, save
from .latent import latent_histogram, latent_over_epochs, latent_weights

__all__ = [
    "COLOURS",
    "Figure",
    "accuracy",
    "colour",
    "confusion",
    "costs",
    "curves",
    "end_points",
    "image_grid",
    "latent_histogram",
    "latent_over_epochs",
    "latent_weights",
    "loss",
    "new",
    "save",
    "sizes",
]
