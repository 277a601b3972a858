"""Processes of their own for tests, forked from one that has imported the course.

Importing PyTorch takes several seconds, and a fork takes some milliseconds. Elsewhere than on Linux, processes are
spawned: Windows cannot fork, and libraries of macOS can crash in a forked process.
"""

import multiprocessing
import os
import socket
import sys

from torch.multiprocessing import ProcessContext, start_processes

METHOD = "forkserver" if sys.platform == "linux" else "spawn"
if METHOD == "forkserver":
    multiprocessing.set_forkserver_preload(["qathelpers"])


def start(count: int, function, *arguments, method: str = METHOD) -> ProcessContext:
    """Call `function(rank, *arguments)` in `count` processes at the same time, with the environment of this one."""
    return start_processes(enter, (dict(os.environ), function, arguments), count, join=False, start_method=method)


def run(count: int, function, *arguments, method: str = METHOD) -> None:
    """Do the same as `start`, wait until all processes have ended, and raise the error of the first one that fails."""
    context = start(count, function, *arguments, method=method)
    while not context.join():
        pass


def enter(rank, environment, function, arguments):
    os.environ.clear()  # a forked process has the environment of the one that it was forked from
    os.environ.update(environment)
    function(rank, *arguments)


def free_port():
    """Return the number of a port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
