"""Helpers for a hands-on course on training low-bit neural networks with Brevitas and PyTorch."""

import logging

from .common.threads import wait_briefly

wait_briefly()  # before the imports below, because they import torch

# When CUDA_HOME is set but there is no GPU, importing Brevitas logs a warning about a missing CUDA runtime, which the
# course does not use. The level has to be set before the imports below, because they import Brevitas.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)

from .common import environment
from .common.environment import setup
from .data import cifar10
from .data.cifar10 import load
from .nets.architectures import build
from .nets.recipe import Recipe
from .nets.schemes import Scheme
from .nets.weights import report
from .results.recorded import recorded_histories, recorded_net
from .results.runs import load_or_train
from .training.evaluation import evaluate, predict
from .training.loop import fit

__all__ = [
    "Recipe",
    "Scheme",
    "build",
    "check_environment",
    "evaluate",
    "fit",
    "load",
    "load_or_train",
    "predict",
    "recorded_histories",
    "recorded_net",
    "report",
    "setup",
]


def check_environment() -> bool:
    """Print whether this machine is ready for the course; paste the output into a bug report.

    There is one line each for Python, the packages, the device, the data and the disk: [ok], or [fix] and what to do.

    Returns:
        True if every check passed.
    """
    return environment.check(cifar10.status)
