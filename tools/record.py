"""Add a finished run to the runs that come with the course, and update the tables and the picture of the results.

Run it as `python -m tools.record NAME`.
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch
from torch import nn

from qathelpers import data, results
from qathelpers.common.errors import MAX_SEED, CourseError
from qathelpers.common.files import write_atomically
from qathelpers.data import Batches
from qathelpers.training import checkpoint, evaluate
from qathelpers.training.run import Run

from . import commands, picture

DATA = commands.CHECKOUT / "data"
RESULTS = commands.CHECKOUT / "docs" / "results.md"


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
        CourseError: If there is no such run, if it was interrupted, or if the packed net does not compute the same as
            the trained one. In these cases, nothing is written.
    """
    run = Run.open(results.run_folder(data_name, arch), name, seed)
    history = run.finished() if (run.config["name"], run.config["seed"]) == (name, seed) else None
    if history is None:
        raise CourseError(
            f"{run.history_path} and {run.weights_path} do not belong to one finished run of {name} with seed {seed}: "
            "train it to the end first."
        )
    written = [target / "results" / data_name / arch / run.history_path.name]
    weights_path = target / "checkpoints" / data_name / arch / run.weights_path.name
    if seed == 0 or keep_weights or weights_path.exists():
        written.append(weights_path)
        net = run.load_net()
        history.config |= _test(pack_and_unpack(net, history.config), history.config)
        checkpoint.save(net, weights_path, history.config, packed=True)
    history.save(written[0])
    return written


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
    text = marks.sub(
        lambda table: f"{table[1]}{results.markdown(table[2])}\n{table[3]}", path.read_text(encoding="utf-8")
    )
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@click.command(cls=commands.Command)
@click.argument("names", nargs=-1, required=True)
@click.option("--arch", default="convnet", show_default=True, help="The architecture of the runs.")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True)
@click.option("--weights", "keep_weights", is_flag=True, help="Keep the weights of a seed other than 0, too.")
def main(names: tuple[str, ...], arch: str, seed: int, keep_weights: bool) -> None:
    """Add your finished CIFAR-10 runs of NAMES to data/, and update the tables and the picture of the results."""
    for name in names:
        print("saved", *record(name, arch, seed=seed, keep_weights=keep_weights))
    update_tables()
    picture.update(commands.CHECKOUT)


if __name__ == "__main__":
    main()
