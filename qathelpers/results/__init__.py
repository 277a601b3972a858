"""Results: train or load runs, find the recorded ones, and compare them in tables."""

from .recorded import RECORDED, recorded_histories, recorded_history, recorded_net
from .runs import find_histories, load_or_train, run_folder
from .tables import ORIGINAL, leaderboard, markdown, summarize, table

__all__ = [
    "ORIGINAL",
    "RECORDED",
    "find_histories",
    "leaderboard",
    "load_or_train",
    "markdown",
    "recorded_histories",
    "recorded_history",
    "recorded_net",
    "run_folder",
    "summarize",
    "table",
]
