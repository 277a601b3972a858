"""The runs that come with the course: histories and trained nets."""

import os

from torch import nn

from ..common import settings
from ..common.errors import CourseError, check_type
from ..common.files import files_in
from ..data import readers, shapes
from ..training import checkpoint
from ..training.history import History
from ..training.run import run_name
from .runs import find_histories, load_history

CLASSES = {"cifar10": readers.CLASSES, "shapes": shapes.CLASSES}
RECORDED = settings.recorded_dir()  # has the folders results/ and checkpoints/


def recorded_histories(arch: str, data_name: str = "cifar10", seed: int | None = 0) -> list[History]:
    """Return the recorded histories of an architecture: those with one seed or, if `seed` is None, with any seed."""
    histories = find_histories(RECORDED / "results" / data_name / arch)
    return [history for history in histories if seed in (None, history.config["seed"])]


def recorded_history(name: str, arch: str = "convnet", data_name: str = "cifar10", seed: int = 0) -> History:
    """Return one recorded history.

    Raises:
        CourseError: If there is no such run (the message lists those that there are), or if its file cannot be read.
    """
    histories = {run_name(h.name, h.config["seed"]): h for h in recorded_histories(arch, data_name, seed=None)}
    wanted = run_name(name, seed)
    if wanted not in histories:
        path = RECORDED / "results" / data_name / arch / f"{wanted}.npy"
        if os.path.lexists(path):
            load_history(path)  # raises, and says why this run was left out
        there = ", ".join(histories) or "none"
        raise CourseError(f"No run {wanted} ({arch}, {data_name}) is recorded; there are: {there}.")
    return histories[wanted]


def recorded_net(name: str, arch: str = "convnet", data_name: str = "cifar10", seed: int = 0) -> nn.Module:
    """Return a trained net that comes with the course.

    Args:
        name: The net's name, such as "BinaryNN".
        arch: Its architecture, such as "convnet".
        data_name: The data set that it was trained on.
        seed: The seed of its run. Weights of other seeds than 0 were kept for few nets.

    Raises:
        CourseError: If there is no such net (the message lists those that there are), or if its file is damaged.
    """
    for argument, value in (("name", name), ("arch", arch), ("data_name", data_name)):
        check_type(argument, value, str, "a string, such as recorded_net('BinaryNN')")
    folder = RECORDED / "checkpoints" / data_name / arch
    names = [path.stem for path in files_in(folder, ".safetensors")]
    wanted = run_name(name, seed)
    if wanted not in names:
        there = ", ".join(names) or "none"
        raise CourseError(f"No net {wanted} ({arch}, {data_name}) is recorded; there are: {there}.")
    path = folder / f"{wanted}.safetensors"
    net, config = checkpoint.load_with_config(path)
    found = run_name(net.spec.name, config.get("seed", seed))
    if found != wanted:
        raise CourseError(f"{path} holds a {found}: replace it with a fresh copy.")
    net.class_names = CLASSES.get(data_name, ())  # exported files name the classes
    return net
