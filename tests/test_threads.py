import os
import subprocess
import sys

import pytest

from qathelpers.common import threads

REPORT = """
import importlib.abc, os, sys


class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            seen.append(os.environ.get("GOMP_SPINCOUNT"))

seen = []
sys.meta_path.insert(0, Watch())
import qathelpers
assert seen[:1] == ["2000"], seen
"""
STEPS = """
import os, sys, time
if hasattr(os, "sched_setaffinity"):  # on more cores, two trainings would not be in each other's way
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import qathelpers, torch
from qathelpers.nets import build
from qathelpers.training import make_optimizers, train_step

torch.set_num_threads(2)
net = build("PytorchNN", "convnet")
recipe, images, labels = net.spec.recipe, torch.randn(128, 3, 32, 32), torch.arange(128) % 10
optimizers, times = make_optimizers(net, recipe), []
print("ready", flush=True)
sys.stdin.readline()
for _ in range(25):
    start = time.perf_counter()
    train_step(net, images, labels, optimizers, recipe)
    times.append(time.perf_counter() - start)
print(sorted(times[5:])[10])
"""


def environment(**chosen):
    inherited = {key: value for key, value in os.environ.items() if key not in (*threads.WAITING, threads.POLICY)}
    return inherited | chosen


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, threads.WAITING),
        ({"GOMP_SPINCOUNT": "7"}, threads.WAITING | {"GOMP_SPINCOUNT": "7"}),
        ({"KMP_BLOCKTIME": "200"}, threads.WAITING | {"KMP_BLOCKTIME": "200"}),
        ({"OMP_WAIT_POLICY": "active"}, dict.fromkeys(threads.WAITING)),
    ],
    ids=str,
)
def test_what_the_user_has_not_chosen_is_set(chosen, expected, monkeypatch):
    variables = environment(**chosen)
    monkeypatch.setattr(os, "environ", variables)
    threads.wait_briefly()
    assert {variable: variables.get(variable) for variable in threads.WAITING} == expected


def test_importing_the_course_sets_it_before_torch_is_imported():
    command = [sys.executable, "-c", REPORT]
    subprocess.run(command, env=environment(), check=True)


def seconds_per_step(processes):
    """Return the median time of a training step in each of `processes` that train at the same time."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", STEPS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    return [float(process.communicate()[0]) for process in running]


@pytest.mark.slow  # and measures times: run it alone, as `python -m pytest tests/test_threads.py -m slow`
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores, on which threads wait for one another")
def test_a_training_beside_another_is_at_most_three_times_as_slow():
    (alone,) = seconds_per_step(1)
    assert max(seconds_per_step(2)) < 3 * alone
