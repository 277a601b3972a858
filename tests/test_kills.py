"""A training that is interrupted or killed 50 times at random moments ends as if nothing had happened.

The processes are forked from one that has imported PyTorch and computed nothing: starting Python anew takes longer than
the trainings here.
"""

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch

from qathelpers import checkpoints, nets, training
from qathelpers.errors import CourseError
from qathelpers.history import History
from qathelpers.recipe import Recipe

KILLS = 50
EPOCHS = 120  # so many that the kills do not run out of them
NAME = "TernaryNN"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
RESULTS = ("epoch", "train_loss", "train_acc", "test_loss", "test_acc")


def train(data, folder, epochs, name, pipe):
    """Train in a process of its own; send a word when the first batch is done, or the sentence of a refusal."""
    torch.set_num_threads(1)
    os.environ.pop("QAT_MAX_EPOCHS", None)  # of whoever started the process that this one was forked from
    net, batches = nets.build(name, "lenet"), []

    def after_batch(share):
        if not batches:
            pipe.send("trains")
        batches.append(share)

    try:
        training.fit(net, data, epochs, recipe=Recipe(batch_size=32), device="cpu", folder=folder, on_batch=after_batch)
    except CourseError as error:
        pipe.send(str(error))


@pytest.fixture(scope="module")
def start(tiny):
    """Return a function that starts a training and returns its process and a pipe that says when it trains."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_kills"])
    data = tiny.take(64, 32)

    def start(folder, epochs=EPOCHS, name=NAME):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=train, args=(data, folder, epochs, name, sender), daemon=True)
        process.start()
        sender.close()  # ours; when the process ends, its own closes too
        return process, receiver

    return start


def said(pipe):
    """Return what the process sends next, or None when it has ended."""
    try:
        return pipe.recv()
    except EOFError:
        return None


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """Return the folder of a training that nobody disturbed, and the seconds until it trained."""
    process, pipe = start(tmp_path_factory.mktemp("first"), epochs=1)  # the first one waits for the imports
    process.join()
    folder, began = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
    process, pipe = start(folder)
    assert said(pipe) == "trains"
    preparation = time.monotonic() - began
    process.join()
    return folder, preparation


def stop(process, sign):
    """Send a signal until the process ends: a Ctrl-C that meets a destructor is reported and forgotten by Python."""
    while process.is_alive():
        os.kill(process.pid, sign)
        process.join(0.3)


def epochs_on_disk(folder):
    path = folder / f"{NAME}.npy"
    return len(History.load(path)) if path.exists() else 0


def test_fifty_kills_lose_nothing_but_the_epochs_under_way(start, undisturbed, tmp_path):
    whole, preparation = undisturbed
    epoch = History.load(whole / f"{NAME}.npy")["seconds"].min()  # of a moment when the machine did nothing else
    chance, kept = random.Random(0), [0]
    for kill in range(KILLS):
        process, pipe = start(tmp_path)
        if kill % 5 == 0:  # while it is about to start, or reads what was there
            time.sleep(chance.uniform(0, preparation))
        else:
            assert said(pipe) == "trains"
            time.sleep(chance.uniform(0, 1.5 * epoch))
        assert process.is_alive(), "the kills ran out of epochs"
        stop(process, SIGNALS[kill % 3])
        kept.append(epochs_on_disk(tmp_path))
        assert kept[-1] < EPOCHS, "the kills ran out of epochs"
        assert kept[-1] >= kept[-2]
        assert len(list(tmp_path.iterdir())) <= 6, "temporary files pile up"  # 3 of the run, 1 half written, 1 lock
    assert 0 < kept[-1] < EPOCHS

    process, pipe = start(tmp_path)
    process.join()
    histories = [History.load(folder / f"{NAME}.npy") for folder in (whole, tmp_path)]
    for column in RESULTS:
        assert np.array_equal(histories[0][column], histories[1][column]), column
    states = [checkpoints.load(folder / f"{NAME}.safetensors").state_dict() for folder in (whole, tmp_path)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    names = [f".{NAME}.lock", *(f"{NAME}.{suffix}" for suffix in ("json", "npy", "safetensors"))]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_of_two_trainings_of_one_net_the_second_is_refused_and_the_first_goes_on(start, tmp_path):
    first, pipe = start(tmp_path, epochs=20)
    assert said(pipe) == "trains"
    second, answer = start(tmp_path)
    other, other_answer = start(tmp_path, epochs=1, name="BinaryNN")
    assert f"{NAME} is being trained in {tmp_path} by another process" in said(answer)
    assert said(other_answer) == "trains"
    for process in (second, other, first):
        process.join()
    assert len(History.load(tmp_path / f"{NAME}.npy")) == 20
    assert len(History.load(tmp_path / "BinaryNN.npy")) == 1
