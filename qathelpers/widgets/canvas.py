"""A figure that redraws only what moves, fast enough to follow the mouse."""

import io
from collections.abc import Iterable

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from ..analysis.figure import Figure

DPI = 130  # 1.3 times the 100 pixels per inch that the pictures are shown with, so that they stay sharp when zoomed


class Canvas:
    """Draws a figure's axes once and its moving parts at every call of `png`.

    Drawing axes, ticks and labels takes most of the time of a figure, and a widget seldom changes them.

    Args:
        figure: The figure.
        moving: All parts that can move or be hidden.
    """

    def __init__(self, figure: Figure, moving: Iterable[Artist] = ()):
        """Take over `figure`."""
        figure.set_dpi(DPI)
        for artist in moving:
            artist.set_animated(True)  # keeps it out of the background
        self.figure, self._canvas, self._background = figure, FigureCanvasAgg(figure), None

    def forget(self) -> None:
        """Draw the axes anew at the next call of `png`, because their limits, ticks or titles have changed."""
        self._background = None

    def png(self, moving: Iterable[Artist]) -> bytes:
        """Return the content of a .png file with the axes and those of the moving parts that are to be seen now."""
        moving = list(moving)
        for artist in moving:
            artist.set_animated(True)
        if self._background is None:
            self._canvas.draw()
            self._background = self._canvas.copy_from_bbox(self.figure.bbox)
        self._canvas.restore_region(self._background)
        for artist in moving:
            artist.axes.draw_artist(artist)
        file = io.BytesIO()
        Image.fromarray(np.asarray(self._canvas.buffer_rgba())[..., :3]).save(file, "png", compress_level=1)
        return file.getvalue()
