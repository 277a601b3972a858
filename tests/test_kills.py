"""A training that is interrupted or killed 50 times at random moments ends with the same result as an undisturbed one.

The processes are forked from one that has imported PyTorch but computed nothing, because starting Python takes longer
than these trainings.
"""

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch

from qathelpers import training
from qathelpers.common.errors import CourseError
from qathelpers.nets import Recipe, build
from qathelpers.training import History, checkpoint

if not hasattr(signal, "SIGKILL"):
    pytest.skip("Windows has no SIGKILL and no processes that are forked", allow_module_level=True)

KILLS = 50
EPOCHS = 120  # so many that the training is not finished before the last kill
NAME = "TernaryNN"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
RESULTS = ("epoch", "train_loss", "train_acc", "test_loss", "test_acc")


def train(dataset, folder, epochs, name, pipe):
    """Train in a process of its own; send "trains" after the first batch, or the message of an error."""
    torch.set_num_threads(1)
    os.environ.pop("QAT_MAX_EPOCHS", None)  # the process that this one was forked from may have had it
    net, batches = build(name, "lenet"), []

    def after_batch(share):
        if not batches:
            pipe.send("trains")
        batches.append(share)

    recipe = Recipe(batch_size=32)
    try:
        training.fit(net, dataset, epochs, recipe=recipe, device="cpu", folder=folder, on_batch=after_batch)
    except CourseError as error:
        pipe.send(str(error))


@pytest.fixture(scope="module")
def start(tiny):
    """Return a function that starts a training and returns its process and the pipe that `train` sends to."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_kills"])
    dataset = tiny.take(64, 32)

    def start(folder, epochs=EPOCHS, name=NAME):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=train, args=(dataset, folder, epochs, name, sender), daemon=True)
        process.start()
        sender.close()  # our end; when the process ends, its end closes too, and the receiver gets an EOFError
        return process, receiver

    return start


def said(pipe):
    """Return what the process sends next, or None if it has ended."""
    try:
        return pipe.recv()
    except EOFError:
        return None


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """Return the folder of a training that was not interrupted, and the seconds until its first batch was done."""
    process, pipe = start(tmp_path_factory.mktemp("first"), epochs=1)  # the first process waits for the imports
    process.join()
    folder, began = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
    process, pipe = start(folder)
    assert said(pipe) == "trains"
    preparation = time.monotonic() - began
    process.join()
    return folder, preparation


def stop(process, sign):
    """Send a signal until the process ends: Python ignores a KeyboardInterrupt that is raised in a destructor."""
    while process.is_alive():
        os.kill(process.pid, sign)
        process.join(0.3)


def epochs_on_disk(folder):
    path = folder / f"{NAME}.npy"
    return len(History.load(path)) if path.exists() else 0


@pytest.mark.slow
def test_fifty_kills_lose_nothing_but_the_epochs_under_way(start, undisturbed, tmp_path):
    whole, preparation = undisturbed
    epoch = History.load(whole / f"{NAME}.npy")["seconds"].min()  # the shortest epoch: the machine did nothing else
    chance, kept = random.Random(0), [0]
    for kill in range(KILLS):
        process, pipe = start(tmp_path)
        if kill % 5 == 0:  # while the process starts, or reads what was there
            time.sleep(chance.uniform(0, preparation))
        else:
            assert said(pipe) == "trains"
            time.sleep(chance.uniform(0, 1.5 * epoch))
        assert process.is_alive(), "the training was finished before the last kill"
        stop(process, SIGNALS[kill % 3])
        kept.append(epochs_on_disk(tmp_path))
        assert kept[-1] < EPOCHS, "the training was finished before the last kill"
        assert kept[-1] >= kept[-2]
        assert len(list(tmp_path.iterdir())) <= 6, "temporary files pile up"  # 3 of the run, 1 half written, 1 lock
    assert 0 < kept[-1] < EPOCHS

    process, pipe = start(tmp_path)
    process.join()
    histories = [History.load(folder / f"{NAME}.npy") for folder in (whole, tmp_path)]
    for column in RESULTS:
        assert np.array_equal(histories[0][column], histories[1][column]), column
    states = [checkpoint.load(folder / f"{NAME}.safetensors").state_dict() for folder in (whole, tmp_path)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    names = [f".{NAME}.lock", *(f"{NAME}.{suffix}" for suffix in ("json", "npy", "safetensors"))]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_of_two_trainings_of_one_net_the_second_is_refused_and_the_first_goes_on(start, tmp_path):
    first, pipe = start(tmp_path, epochs=20)
    assert said(pipe) == "trains"
    second, answer = start(tmp_path)
    other, other_answer = start(tmp_path, epochs=1, name="BinaryNN")
    sentence = said(answer)
    assert NAME in sentence and str(tmp_path) in sentence and "QAT_RESULTS_DIR" in sentence
    assert said(other_answer) == "trains"
    for process in (second, other, first):
        process.join()
    assert len(History.load(tmp_path / f"{NAME}.npy")) == 20
    assert len(History.load(tmp_path / "BinaryNN.npy")) == 1
