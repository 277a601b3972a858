"""Measure how fast training is on this machine: training loops, quantizers, data set sizes and batch sizes.

Run it as `python -m tools.training_benchmark`, or as `make bench`. The command `loader` times the data loading only.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import pandas as pd
import torch
from brevitas_examples.bnn_pynq import models
from brevitas_examples.bnn_pynq.models.losses import SqrHingeLoss
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from qathelpers import data, results
from qathelpers.common import hardware
from qathelpers.common.files import write_atomically
from qathelpers.common.timing import alternate, medians
from qathelpers.data import Batches, Dataset
from qathelpers.nets import Recipe, build
from qathelpers.nets.fused_quantizers import fused
from qathelpers.training import make_optimizers, train_step

from . import commands
from .loader_benchmark import TrainingImages, loader

CPU = torch.device("cpu")
BATCH = 256
STEPS = 8  # training steps per measurement
ARCHS = ("convnet", "sharpnet")
SCHEMES = ("PytorchNN", "TernaryNN", "BinaryNN", "Int4NN", "XnorNN")


def measure_all(dataset: Dataset, file: Path | None = None) -> dict[str, pd.DataFrame]:
    """Run all measurements of this module; print each table when it is ready, and all of them as JSON at the end.

    Args:
        dataset: The images to train on.
        file: A file to which the JSON is also written.

    Returns:
        The tables, by the name of the function that measured them.
    """
    hardware.keep_freed_memory()
    about = {"hardware": hardware.describe(CPU), "data": str(dataset), "versions": hardware.versions()}
    print(about)
    tables = {}
    for measure in (loops, schemes, sizes, time_to):
        table = tables[measure.__name__] = measure() if measure is time_to else measure(dataset)
        print(f"\n{measure.__doc__.splitlines()[0]}\n{table.to_string(index=False)}", flush=True)
    text = json.dumps(about | {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()})
    print("\n" + text)
    if file:
        write_atomically(file, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))
    return tables


def loops(dataset: Dataset, batch_size: int = 100) -> pd.DataFrame:
    """Compare the images per second of our training loop with those of Brevitas' `bnn_pynq`, on its net CNV_1W1A.

    The loop of `bnn_pynq` reads images through torchvision's transforms and a DataLoader (here without worker
    processes), and uses Adam, the squared hinge loss, weights clipped to [-1, 1] and batches of 100. Ours uses
    `Batches`, Muon and cross-entropy.

    Returns:
        One row per loop; the column `speedup` is relative to `bnn_pynq`.
    """
    transform = transforms.Compose(
        [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    data_loader = DataLoader(TrainingImages(dataset, transform), batch_size, shuffle=True)
    batches = Batches(dataset.train_images, dataset.train_labels, batch_size, shuffle=True, augment=True)
    their_net, our_net = (models.cnv_1w1a(pretrained=False) for _ in range(2))
    ours = _our_steps(our_net, Recipe(), lambda: batches.epoch(0))
    seconds = medians(alternate({"bnn_pynq": _their_steps(their_net, data_loader), "qathelpers": ours}))
    rows = [
        {"loop": name, "images per second": STEPS * batch_size / value, "speedup": seconds["bnn_pynq"] / value}
        for name, value in seconds.items()
    ]
    return pd.DataFrame(rows).round({"images per second": 0, "speedup": 2})


def schemes(dataset: Dataset, archs: Sequence[str] = ARCHS) -> pd.DataFrame:
    """Compare the training step of each scheme with the float net's step, and with the peak speed of this machine.

    The peak is the speed of the fastest single convolution (see `convolution_peak`), in the precision of training.

    Returns:
        One row per architecture and scheme: milliseconds per step, time relative to the float net, GFLOP/s (counted for
        the float net), and the share of the peak.
    """
    part = dataset.take(train=BATCH * STEPS)
    batches = Batches(part.train_images, part.train_labels, BATCH, shuffle=True, augment=True)
    rows, peak = [], convolution_peak()
    for arch in archs:
        nets = {name: build(name, arch) for name in SCHEMES}
        flop = STEPS * flop_per_step(nets["PytorchNN"])
        ways = {name: _our_steps(net, net.spec.recipe, lambda: batches.epoch(0)) for name, net in nets.items()}
        seconds = medians(alternate(ways))
        rows += [
            {
                "arch": arch,
                "net": name,
                "ms per step": value / STEPS * 1e3,
                "relative to float": value / seconds["PytorchNN"],
                "GFLOP/s": flop / value / 1e9,
                "share of peak": flop / value / peak,
            }
            for name, value in seconds.items()
        ]
    return pd.DataFrame(rows).round({"ms per step": 1, "relative to float": 2, "GFLOP/s": 0, "share of peak": 2})


def convolution_peak() -> float:
    """Return the FLOP/s of the fastest among several 3 x 3 convolutions (forward pass, batches of 256)."""
    rates = []
    for channels, side in ((40, 15), (48, 16), (64, 8), (128, 8), (160, 7), (128, 4), (152, 4), (256, 4)):
        images = torch.randn(BATCH, channels, side, side).to(memory_format=torch.channels_last)
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
        seconds = medians(alternate({"conv": lambda i=images, c=conv: _forwards(i, c)}, repeats=5))["conv"]
        rates.append(STEPS * 2 * images.numel() * channels * 9 / seconds)
    return max(rates)


def sizes(dataset: Dataset) -> pd.DataFrame:
    """Measure the seconds per epoch for several numbers of images, and for several batch sizes with a tenth of them.

    This takes minutes, because whole epochs are trained.

    Returns:
        One row per number of images and batch size: seconds per epoch, and images per second.
    """
    net, total = build("BinaryNN"), len(dataset.train_labels)
    rows = []
    for count, size in [(total // n, BATCH) for n in (10, 5, 2, 1)] + [
        (total // 10, b) for b in (128, 512, 1024, 2048)
    ]:
        part = dataset.take(train=count)
        batches = Batches(part.train_images, part.train_labels, size, shuffle=True, augment=True)
        repeats = 1 if count > total // 5 else 3
        epoch = _our_steps(net, net.spec.recipe, lambda b=batches: b.epoch(0), steps=None)
        seconds = medians(alternate({"epoch": epoch}, repeats))["epoch"]
        rows.append({"images": count, "batch": size, "s per epoch": seconds, "images per second": count / seconds})
    return pd.DataFrame(rows).round({"s per epoch": 2, "images per second": 0})


def time_to(accuracy: float = 0.8, archs: Sequence[str] = ARCHS) -> pd.DataFrame:
    """Look up in which epoch, and after how many minutes, the recorded runs first reached 80 % test accuracy.

    Args:
        accuracy: Another accuracy to look for, from 0 to 1.
        archs: The architectures whose runs are looked up.

    Returns:
        One row per recorded run; epoch and minutes are missing for runs that never reached the accuracy.
    """
    rows = []
    for history in itertools.chain.from_iterable(map(results.recorded_histories, archs)):
        reached = (history["test_acc"] >= accuracy).nonzero()[0]
        first = reached[0] + 1 if len(reached) else None
        minutes = history["seconds"][:first].sum() / 60 if first else float("nan")
        config = {key: history.config[key] for key in ("arch", "hardware")}
        rows.append({"net": history.name, "epoch": first, "minutes": minutes} | config)
    return pd.DataFrame(rows).astype({"epoch": "Int64"}).round({"minutes": 1})


def flop_per_step(net: nn.Module) -> int:
    """Return the floating-point operations of one training step; a multiplication with an addition counts as two."""
    with FlopCounterMode(display=False) as counter:
        net(torch.randn(BATCH, 3, 32, 32)).sum().backward()
    net.zero_grad()
    return counter.get_total_flops()


def _our_steps(
    net: nn.Module, recipe: Recipe, epoch: Callable[[], Iterator], steps: int | None = STEPS
) -> Callable[[], Iterator[torch.Tensor]]:
    net.train().to(memory_format=torch.channels_last)
    optimizers = make_optimizers(net, recipe)

    def turn() -> Iterator[torch.Tensor]:
        with fused(net):  # as in `fit`
            for images, labels in itertools.islice(epoch(), steps):
                yield train_step(net, images, labels, optimizers, recipe)

    return turn


def _their_steps(net: nn.Module, data_loader: DataLoader) -> Callable[[], Iterator[torch.Tensor]]:
    net.train()
    criterion, optimizer = SqrHingeLoss(), torch.optim.Adam(net.parameters(), lr=0.02)

    def turn() -> Iterator[torch.Tensor]:
        for images, labels in itertools.islice(data_loader, STEPS):
            target = torch.full((len(labels), 10), -1.0).scatter_(1, labels.unsqueeze(1), 1)
            loss = criterion(net(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            net.clip_weights(-1, 1)
            yield loss.detach()

    return turn


@torch.no_grad()
def _forwards(images: torch.Tensor, conv: nn.Module) -> Iterator[torch.Tensor]:
    with hardware.autocast(CPU, hardware.precision(CPU)):
        for _ in range(STEPS):
            yield conv(images)


data_option = click.option("--data", "data_name", type=click.Choice(data.NAMES), help="Default: QAT_DATA, or auto.")


@click.group(cls=commands.Group, invoke_without_command=True)
@data_option
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also write the tables to this file.")
@click.option("--threads", type=click.IntRange(1), help="Number of threads that PyTorch uses. Default: one per core.")
@click.pass_context
def main(context: click.Context, data_name: str | None, file: Path | None, threads: int | None) -> None:
    """Measure how fast training is on this machine, with alternatives side by side; takes two to ten minutes."""
    if threads:
        torch.set_num_threads(threads)
    if context.invoked_subcommand is None:
        measure_all(data.load(data_name), file)


@main.command("loader")
@data_option
def loader_command(data_name: str | None) -> None:
    """Time an epoch of `Batches` and an epoch of a DataLoader with the same augmentation."""
    loader(data.load(data_name))


if __name__ == "__main__":
    main()
