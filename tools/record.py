"""Add a finished run to the runs that come with the course, and update the tables and the picture of the results.

Run it as `python -m tools.record NAME`.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch
from torch import nn

from qathelpers import data, results
from qathelpers.common.errors import MAX_SEED, CourseError
from qathelpers.common.files import (
    check_readable,
    check_replaceable,
    check_writable,
    remove_leftovers,
    write_atomically,
)
from qathelpers.common.words import counted
from qathelpers.data import Batches
from qathelpers.training import checkpoint, evaluate
from qathelpers.training.history import History
from qathelpers.training.run import Run

from . import commands, journal, picture

DATA = commands.CHECKOUT / "data"
RESULTS = commands.CHECKOUT / "docs" / "results.md"
JOURNAL = ".undo.zip"  # in the folder of the recorded runs, while some of them are replaced
WHOLE = {"cifar10": (50_000, 10_000)}  # training and test images


def record(
    name: str,
    arch: str,
    data_name: str = "cifar10",
    seed: int = 0,
    target: Path = DATA,
    keep_weights: bool = False,
) -> list[Path]:
    """Copy a finished run from your results folder into `target`: its history and its packed weights.

    Weights are copied for seed 0. For another seed they are copied if you want to keep them, or if `target` already has
    weights of this net and seed, which would not belong to the new history. The test accuracy of copied weights is
    added to the config.

    Args:
        name: The net's name, such as "BinaryNN".
        arch: Its architecture, such as "convnet".
        data_name: The data set that it was trained on.
        seed: The seed of the run.
        target: The folder with the subfolders results/ and checkpoints/.
        keep_weights: Copy the weights, whatever the seed.

    Returns:
        The files that were written.

    Raises:
        CourseError: If there is no such run, if it was interrupted or was not of the whole data set, if a better run is
            recorded already, or if the packed net does not compute the same as the trained one. In these cases, nothing
            is written.
    """
    journal.undo(target / JOURNAL)
    recordings = [prepare(name, arch, data_name, seed, target, keep_weights)]
    with journal.replaced_together(paths_of(recordings), target / JOURNAL):
        return publish(recordings)


@dataclass
class Recording:
    """A run that has passed all checks, with the paths that its files get."""

    history: History
    history_path: Path
    net: nn.Module | None
    weights_path: Path | None


def prepare(
    name: str,
    arch: str,
    data_name: str = "cifar10",
    seed: int = 0,
    target: Path = DATA,
    keep_weights: bool = False,
    replace_better: bool = False,
) -> Recording:
    """Check everything that can be checked before anything is written; see `record`.

    Args:
        name: The net's name.
        arch: Its architecture.
        data_name: The data set that it was trained on.
        seed: The seed of the run.
        target: The folder with the subfolders results/ and checkpoints/.
        keep_weights: Copy the weights, whatever the seed.
        replace_better: Accept a run although a better one is recorded, which it replaces.
    """
    run = Run.open(results.run_folder(data_name, arch), name, seed)
    history = run.finished() if (run.config["name"], run.config["seed"]) == (name, seed) else None
    if history is None:
        raise CourseError(
            f"{run.history_path} and {run.weights_path} do not belong to one finished run of {name} with seed {seed}: "
            "train it to the end first."
        )
    _check_whole_data(history)
    path = target / "results" / data_name / arch / run.history_path.name
    weights_path = target / "checkpoints" / data_name / arch / run.weights_path.name
    check_writable(path.parent)
    check_writable(weights_path.parent)
    net = run.load_net() if seed == 0 or keep_weights or weights_path.exists() else None
    if net is not None:
        history.config |= _test(pack_and_unpack(net, history.config), history.config)
    if not replace_better:
        _check_no_better(history, path)
    return Recording(history, path, net, weights_path if net is not None else None)


def paths_of(recordings: Iterable[Recording]) -> list[Path]:
    """Return all files that `publish` writes."""
    paths = []
    for recording in recordings:
        paths += [recording.history_path, recording.history_path.with_suffix(".json")]
        paths += [recording.weights_path] if recording.weights_path else []
    return paths


def publish(recordings: Iterable[Recording]) -> list[Path]:
    """Write what `prepare` has checked.

    Returns:
        The .npy file of each history, and the .safetensors file of each net.

    Raises:
        CourseError: If a file cannot be written.
    """
    for recording in recordings:
        if recording.net is not None:
            checkpoint.save(recording.net, recording.weights_path, recording.history.config, packed=True)
        recording.history.save(recording.history_path)
    return [path for path in paths_of(recordings) if path.suffix != ".json"]


@contextlib.contextmanager
def restored_on_error(paths: list[Path]) -> Iterator[None]:
    """If the body of the `with` statement fails or is interrupted, give `paths` the content that they had before."""
    before = {path: path.read_bytes() if path.exists() else None for path in paths}
    try:
        yield
    except BaseException:
        for path, content in before.items():
            journal.put_back(path, content)
        raise


def _check_whole_data(history: History) -> None:
    """Check that a run on CIFAR-10 was trained and evaluated on all of its images."""
    counts = history.config.get("train_images"), history.config.get("test_images")
    wanted = WHOLE.get(history.config["data"], counts)
    if counts != wanted or history.held_out != "test":
        raise CourseError(
            f"The run of {history.name} was trained on {counts[0]} and evaluated on {counts[1]} {history.held_out} "
            f"images: unset QAT_MAX_IMAGES, and train on all {wanted[0]:,} and {wanted[1]:,} images."
        )


def _check_no_better(history: History, path: Path) -> None:
    """Check that the run at `path`, if there is one, was not trained for longer and has no higher accuracy."""
    if not path.exists():
        return
    old = History.load(path)
    if len(old) > len(history) or old.test_acc > history.test_acc:
        raise CourseError(
            f"{path} holds a run of {counted(len(old), 'epoch')} with a test accuracy of {old.test_acc:.4f}; this one "
            f"has {counted(len(history), 'epoch')} and {history.test_acc:.4f}: pass --replace to replace it anyway."
        )


def pack_and_unpack(net: nn.Module, config: dict) -> nn.Module:
    """Return a copy of `net` whose weights were packed and unpacked.

    Raises:
        CourseError: If the copy does not compute exactly the same logits as `net`, in the precision of the training.
    """
    with TemporaryDirectory() as folder:
        unpacked = checkpoint.load(checkpoint.save(net, Path(folder) / "packed.safetensors", config, packed=True))
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    # Packing rounds the float weights of a net that was trained in bf16 to bf16, which autocast does to them anyway.
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=config["precision"] == "bf16"):
        same = torch.equal(unpacked(images), net.eval()(images))
    if not same:
        raise CourseError(
            f"The packed {config['name']} does not compute the same logits as the trained net, so it was not recorded: "
            "make qathelpers/nets/packing.py support its quantizers first."
        )
    return unpacked


def _test(net: nn.Module, config: dict) -> dict[str, float]:
    dataset = data.load(config["data"])
    if len(dataset.test_labels) != config["test_images"]:
        raise CourseError(
            f"The run was evaluated on {config['test_images']:,} images, but the test set has "
            f"{len(dataset.test_labels):,} images here: record runs on the whole test set, and unset QAT_MAX_IMAGES."
        )
    loss, accuracy = evaluate(net, Batches(dataset.test_images, dataset.test_labels, batch_size=1000))
    return {"test_loss": loss, "test_acc": accuracy}


def update_tables(path: Path = RESULTS) -> None:
    """Update every table in `path` between `<!-- results: ARCH -->` and `<!-- end -->` from the recorded runs."""
    marks = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
    old = path.read_text(encoding="utf-8")
    text = marks.sub(lambda table: f"{table[1]}{results.markdown(table[2])}\n{table[3]}", old)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def update_pages(pages: Iterable[Path]) -> None:
    """Update everything that is computed from the recorded runs."""
    for page in pages:
        remove_leftovers(page)
    picture.points.cache_clear()  # the runs may have changed since the last update
    update_tables(RESULTS)
    picture.update(commands.CHECKOUT)


def check_pages(paths: Iterable[Path]) -> None:
    """Check that the pages with results can be updated, before any run is recorded.

    Raises:
        CourseError: If a page is missing, as in an installed package, or if it cannot be read or written.
    """
    for path in paths:
        check_readable(path, "a page of the course", "record runs in a checkout of the course")
        check_writable(path.parent)
        check_replaceable(path)
        try:
            path.read_text(encoding="utf-8")
        except UnicodeError as error:
            raise CourseError(f"{path} is not encoded in UTF-8 ({error}): restore it with git.") from error


@click.command(cls=commands.Command)
@click.argument("names", nargs=-1, required=True)
@click.option("--arch", default="convnet", show_default=True, help="The architecture of the runs.")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True)
@click.option("--weights", "keep_weights", is_flag=True, help="Keep the weights of a seed other than 0, too.")
@click.option("--replace", is_flag=True, help="Replace a recorded run that is longer or better.")
def main(names: tuple[str, ...], arch: str, seed: int, keep_weights: bool, replace: bool) -> None:
    """Add your finished CIFAR-10 runs of NAMES to data/, and update the tables and the picture of the results.

    Everything is checked before anything is written, and either all of it is written or nothing. If the command is
    killed, the next call first undoes what was written.
    """
    target = commands.CHECKOUT / "data"
    pages = [RESULTS, *(commands.CHECKOUT / name for name in (picture.README, picture.PICTURE))]
    check_pages(pages)
    if undone := journal.undo(target / JOURNAL):
        update_pages(pages)
        print("A recording was interrupted; these files have their old content again:", *undone)
    recordings = [
        prepare(name, arch, seed=seed, keep_weights=keep_weights, replace_better=replace)
        for name in dict.fromkeys(names)
    ]
    # The pages are not in the journal: they are computed from the recorded runs, and have text that someone may edit.
    with restored_on_error(pages), journal.replaced_together(paths_of(recordings), target / JOURNAL):
        paths = publish(recordings)
        update_pages(pages)
    print("saved", *paths)


if __name__ == "__main__":
    main()
