"""Your own runs: train or load a run, and find runs on disk."""

from pathlib import Path

from torch import nn

from ..common import distributed, settings
from ..common.errors import CourseError, check_type
from ..common.files import as_path, files_in
from ..common.words import counted
from ..data.dataset import NAME, Dataset
from ..nets.architectures import build
from ..nets.recipe import Recipe
from ..nets.schemes import SCHEMES, Scheme
from ..training import overwriting, schema
from ..training.history import History
from ..training.loop import train
from ..training.run import Run

NEEDED = ("bits", "seed", "data", "hardware")  # keys of a config that tables show


def run_folder(data_name: str, arch: str) -> Path:
    """Return the folder of the runs of an architecture on a data set; data sets never share a folder.

    Raises:
        CourseError: If one of the names cannot be the name of a folder.
    """
    for kind, name in (("data set", data_name), ("architecture", arch)):
        if not NAME.fullmatch(str(name)):
            raise CourseError(
                f"{name!r} cannot be the name of a folder: give the {kind} a name of up to 80 letters, digits, spaces "
                "or . + - _"
            )
    return settings.results_dir() / data_name / arch


def build_for(dataset: Dataset, name: str | Scheme, arch: str = "convnet", seed: int = 0) -> nn.Module:
    """Return a new net for the classes, the image size and the channels of `dataset`; see `build`."""
    check_type("dataset", dataset, Dataset, "what `data.load` returns")
    dataset.check()
    channels, _, image_size = dataset.train_images.shape[1:]
    return build(name, arch, seed, classes=len(dataset.classes), image_size=image_size, channels=channels)


def plan(
    name: str | Scheme,
    dataset: Dataset,
    epochs: int,
    *,
    arch: str = "convnet",
    seed: int = 0,
    recipe: Recipe | None = None,
) -> tuple[nn.Module, Run]:
    """Return a new net and its run, as `load_or_train` trains it.

    `overwriting.refusal(run)` says whether another run is in its way.
    """
    net = build_for(dataset, name, arch, seed)
    return net, Run.plan(net, dataset, epochs, recipe=recipe, seed=seed, folder=run_folder(dataset.name, arch))


def load_or_train(
    name: str | Scheme,
    dataset: Dataset,
    epochs: int,
    *,
    arch: str = "convnet",
    seed: int = 0,
    recipe: Recipe | None = None,
    overwrite: bool = False,
) -> tuple[nn.Module, History]:
    """Load a net if exactly this run is already finished, else train it; print which of the two happens.

    Args:
        name: Name of the scheme, such as "TernaryNN", or a `Scheme` of your own.
        dataset: Data to train and evaluate on.
        epochs: Number of passes over the training images.
        arch: Name of the architecture.
        seed: Seed of initialization and training.
        recipe: How to train; by default the net's own recipe.
        overwrite: Whether a run with other settings may be replaced; see `fit`.

    Returns:
        The trained net and its history.

    Raises:
        CourseError: In the cases that `build` and `fit` name.
    """
    net, run = plan(name, dataset, epochs, arch=arch, seed=seed, recipe=recipe)
    history = distributed.from_first(run.finished)
    if history is None:
        overwriting.check(run, overwrite)  # before the lock, which creates files
        with run.lock():
            history = distributed.from_first(run.finished)  # another process may have finished it since the first look
            if history is None:
                print(f"{net.spec.name}: training for {counted(run.epochs, 'epoch')} on {run.config['hardware']}")
                return net, train(run, net, dataset, overwrite=overwrite)
    print(f"{net.spec.name}: loaded from {settings.short(run.weights_path)}; delete that file to train again")
    return run.load_net(net).to(run.device), history


def find_histories(folder: str | Path) -> list[History]:
    """Return the non-empty histories in `folder`, sorted by net (as in `SCHEMES`, then others) and by seed.

    A .npy file that is not the history of a run, or cannot be read, is left out; a line that names it is printed.

    Raises:
        CourseError: If the folder cannot be read.
    """
    order, histories = list(SCHEMES), []
    for path in files_in(as_path("folder", folder), ".npy"):
        try:
            histories.append(load_history(path))
        except CourseError as error:
            print(f"Left out: {error}")
    return sorted((h for h in histories if len(h)), key=lambda h: ((*order, h.name).index(h.name), h.config["seed"]))


def load_history(path: Path) -> History:
    """Return the history in a .npy file, after a check of all that tables need.

    Raises:
        CourseError: If the file cannot be read, is not the history of a run, or its config lacks something.
    """
    history = History.load(path)
    problem = problem_with(history.config)
    if problem:
        raise CourseError(f"The config of {path} {problem}: move that run to another folder.")
    return history


def problem_with(config: dict) -> str:
    """Return what a config lacks that tables need, or which value of it is wrong; else an empty string."""
    missing = [key for key in NEEDED if key not in config]
    return f"lacks {', '.join(missing)}" if missing else schema.problem_with(config)
