"""The runs that come with the course: histories and trained nets."""

from torch import nn

from ..common import settings
from ..common.errors import CourseError
from ..training import checkpoint
from ..training.history import History
from ..training.run import run_name
from .runs import find_histories

RECORDED = settings.recorded_dir()  # has the folders results/ and checkpoints/


def recorded_histories(arch: str, data_name: str = "cifar10", seed: int | None = 0) -> list[History]:
    """Return the recorded histories of an architecture: those with one seed or, if `seed` is None, with any seed."""
    histories = find_histories(RECORDED / "results" / data_name / arch)
    return [history for history in histories if seed in (None, history.config["seed"])]


def recorded_history(name: str, arch: str = "convnet", data_name: str = "cifar10", seed: int = 0) -> History:
    """Return one recorded history.

    Raises:
        CourseError: If there is no such run (the message lists those that there are).
    """
    histories = {run_name(h.name, h.config["seed"]): h for h in recorded_histories(arch, data_name, seed=None)}
    wanted = run_name(name, seed)
    if wanted not in histories:
        there = ", ".join(histories) or "none"
        raise CourseError(f"No run {wanted} ({arch}, {data_name}) is recorded; there are: {there}.")
    return histories[wanted]


def recorded_net(name: str, arch: str = "convnet", data_name: str = "cifar10") -> nn.Module:
    """Return a trained net that comes with the course.

    Raises:
        CourseError: If there is no such net (the message lists those that there are), or if its file is damaged.
    """
    folder = RECORDED / "checkpoints" / data_name / arch
    names = sorted(path.stem for path in folder.glob("*.safetensors"))
    if name not in names:
        there = ", ".join(names) or "none"
        raise CourseError(f"No net {name} ({arch}, {data_name}) is recorded; there are: {there}.")
    net = checkpoint.load(folder / f"{name}.safetensors")
    if net.spec.name != name:
        raise CourseError(f"{folder / name}.safetensors holds a {net.spec.name}: replace it with a fresh copy.")
    return net
