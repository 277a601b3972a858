"""What a notebook does with functions, done with the mouse: ipywidgets on top of the same functions.

Written to what ipywidgets 7.7 (Colab) and 8 share.
"""

from .comparison import Comparison
from .explorer import QuantizerExplorer
from .guesser import PictureGuesser
from .training_panel import TrainingPanel

__all__ = ["Comparison", "PictureGuesser", "QuantizerExplorer", "TrainingPanel"]
