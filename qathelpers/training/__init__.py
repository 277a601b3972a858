"""Training: the loop, its optimizers, evaluation, and the files of a run."""

from . import checkpoint
from .evaluation import evaluate, predict
from .history import History
from .loop import fit, train, train_step
from .muon import Muon
from .optimizers import make_optimizers
from .run import Run

__all__ = [
    "History",
    "Muon",
    "Run",
    "checkpoint",
    "evaluate",
    "fit",
    "make_optimizers",
    "predict",
    "train",
    "train_step",
]
