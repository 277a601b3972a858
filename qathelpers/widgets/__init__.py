"""Interactive widgets for the notebooks: they call the same functions as the cells around them.

They use only what ipywidgets 7.7 (the version on Colab) and 8 have in common.
"""

from .bit_budget import BitBudget
from .comparison import Comparison
from .explorer import QuantizerExplorer
from .guesser import PictureGuesser
from .setting import Setting
from .training_panel import TrainingPanel

__all__ = ["BitBudget", "Comparison", "PictureGuesser", "QuantizerExplorer", "Setting", "TrainingPanel"]
