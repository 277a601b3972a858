"""How the threads of PyTorch wait for one another. This module must not import torch, because it has to run first."""

import os

# GNU's OpenMP (Linux) counts rounds of a loop, LLVM's and Intel's (macOS, conda) count milliseconds.
WAITING = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}
POLICY = "OMP_WAIT_POLICY"  # sets the same for every OpenMP


def wait_briefly() -> None:
    """Let threads that wait for others give up their core soon, unless the user has chosen how they wait.

    After each operation, the threads of PyTorch wait for the slowest one. By default they keep their cores busy for
    some milliseconds while they wait. If another training runs on the same cores, the waiting threads of one training
    keep the threads of the other from running. On two cores of an AMD EPYC, a step of the convnet then takes 4 times as
    long as alone; on an Intel Xeon with AMX, it takes 16 times as long. With these settings, it takes 2.5 times as long
    on the EPYC. A training that runs alone takes as long as without them.

    The settings take effect in this process if torch has not been imported yet, and in the processes that it starts.

    Reference:
        GNU libgomp, GOMP_SPINCOUNT; LLVM OpenMP, KMP_BLOCKTIME.
    """
    if POLICY in os.environ:
        return
    for variable, value in WAITING.items():
        os.environ.setdefault(variable, value)
