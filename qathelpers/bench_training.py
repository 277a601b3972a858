"""What training costs on this machine: loops, quantizers, sizes, all measured side by side."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from brevitas_examples.bnn_pynq import models
from brevitas_examples.bnn_pynq.models.losses import SqrHingeLoss
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from . import hardware, results
from .batches import Batches
from .bench import Pictures, alternate, medians
from .data import Data
from .files import write_atomically
from .nets import build
from .recipe import Recipe
from .training import make_optimizers

CPU = torch.device("cpu")
BATCH = 256
STEPS = 8  # a turn
ARCHS = ("convnet", "sharpnet")
SCHEMES = ("PytorchNN", "TernaryNN", "BinaryNN", "Int4NN", "XnorNN")


def everything(loaded: Data, file: Path | None = None) -> dict[str, pd.DataFrame]:
    """Measure all of this module, print each table as it comes, then all as JSON (into `file` where given)."""
    hardware.keep_freed_memory()
    about = {"hardware": hardware.describe(CPU), "data": str(loaded), "versions": hardware.versions()}
    print(about)
    tables = {}
    for measure in (loops, schemes, growth, time_to):
        tables[measure.__name__] = measure() if measure is time_to else measure(loaded)
        print(f"\n{measure.__doc__.splitlines()[0]}\n{tables[measure.__name__].to_string(index=False)}", flush=True)
    text = json.dumps(about | {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()})
    print("\n" + text)
    if file:
        write_atomically(file, lambda temporary: temporary.write_text(text + "\n"))
    return tables


def loops(loaded: Data, batch_size: int = 100) -> pd.DataFrame:
    """Compare our loop with that of `brevitas_examples.bnn_pynq` on its own net, CNV_1W1A: images a second.

    Theirs: torchvision's transforms in a DataLoader, here without worker processes, Adam, squared hinge loss, weights
    clipped to +-1, batches of 100; ours: `Batches`, Muon, cross-entropy.
    """
    transform = transforms.Compose(
        [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    loader = DataLoader(Pictures(loaded, transform), batch_size, shuffle=True)
    batches = Batches(loaded.train_images, loaded.train_labels, batch_size, shuffle=True, augment=True)
    their_net, our_net = (models.cnv_1w1a(pretrained=False) for _ in range(2))
    ways = {"bnn_pynq": _their_steps(their_net, loader), "qathelpers": _our_steps(our_net, lambda: batches.epoch(0))}
    seconds = medians(alternate(ways))
    rows = [
        {"loop": name, "images a second": STEPS * batch_size / value, "times": seconds["bnn_pynq"] / value}
        for name, value in seconds.items()
    ]
    return pd.DataFrame(rows).round({"images a second": 0, "times": 2})


def schemes(loaded: Data, archs: Sequence[str] = ARCHS) -> pd.DataFrame:
    """Compare a training step of each scheme with the float one of the same architecture, and with the peak.

    The peak is what this machine's best convolution of those in the nets reaches by itself, in the precision that
    training uses.
    """
    part = loaded.take(train=BATCH * STEPS)
    batches = Batches(part.train_images, part.train_labels, BATCH, shuffle=True, augment=True)
    rows, peak = [], convolution_peak()
    for arch in archs:
        nets = {name: build(name, arch) for name in SCHEMES}
        flop = STEPS * _flop(nets["PytorchNN"])
        seconds = medians(alternate({name: _our_steps(net, lambda: batches.epoch(0)) for name, net in nets.items()}))
        rows += [
            {
                "arch": arch,
                "net": name,
                "step ms": value / STEPS * 1e3,
                "to float": value / seconds["PytorchNN"],
                "GFLOP/s": flop / value / 1e9,
                "of peak": flop / value / peak,
            }
            for name, value in seconds.items()
        ]
    return pd.DataFrame(rows).round({"step ms": 1, "to float": 2, "GFLOP/s": 0, "of peak": 2})


def convolution_peak() -> float:
    """Return the FLOP a second of the fastest of some convolutions, 3 x 3, forward, batch 256."""
    rates = []
    for channels, side in ((40, 15), (48, 16), (64, 8), (128, 8), (160, 7), (128, 4), (152, 4), (256, 4)):
        images = torch.randn(BATCH, channels, side, side).to(memory_format=torch.channels_last)
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
        seconds = medians(alternate({"conv": lambda i=images, c=conv: _forwards(i, c)}, repeats=5))["conv"]
        rates.append(STEPS * 2 * images.numel() * channels * 9 / seconds)
    return max(rates)


def growth(loaded: Data) -> pd.DataFrame:
    """Measure an epoch's seconds by the number of images (batches of 256) and by the batch size (a tenth of them).

    Whole epochs are stepped through, so this takes minutes.
    """
    net, total = build("BinaryNN"), len(loaded.train_labels)
    rows = []
    for count, size in [(total // n, BATCH) for n in (10, 5, 2, 1)] + [
        (total // 10, b) for b in (128, 512, 1024, 2048)
    ]:
        part = loaded.take(train=count)
        batches = Batches(part.train_images, part.train_labels, size, shuffle=True, augment=True)
        repeats = 1 if count > total // 5 else 3
        times = alternate({"epoch": _our_steps(net, lambda b=batches: b.epoch(0), steps=None)}, repeats)
        seconds = medians(times)["epoch"]
        rows.append({"images": count, "batch": size, "epoch s": seconds, "images a second": count / seconds})
    return pd.DataFrame(rows).round({"epoch s": 2, "images a second": 0})


def time_to(accuracy: float = 0.8, archs: Sequence[str] = ARCHS) -> pd.DataFrame:
    """Look up when the recorded runs on CIFAR-10 reached a test accuracy: epoch and minutes of training."""
    rows = []
    for history in itertools.chain.from_iterable(map(results.recorded_histories, archs)):
        reached = (history["test_acc"] >= accuracy).nonzero()[0]
        first = reached[0] + 1 if len(reached) else None
        minutes = history["seconds"][:first].sum() / 60 if first else float("nan")
        card = {key: history.card[key] for key in ("arch", "hardware")}
        rows.append({"net": history.name, "epoch": first, "minutes": minutes} | card)
    return pd.DataFrame(rows).astype({"epoch": "Int64"}).round({"minutes": 1})


def _our_steps(
    net: nn.Module, epoch: Callable[[], Iterator], steps: int | None = STEPS
) -> Callable[[], Iterator[torch.Tensor]]:
    net.train().to(memory_format=torch.channels_last)
    optimizers = make_optimizers(net, getattr(net, "recipe", Recipe()))

    def turn() -> Iterator[torch.Tensor]:
        for images, labels in itertools.islice(epoch(), steps):
            with hardware.autocast(CPU):
                logits = net(images).float()
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            yield loss.detach()

    return turn


def _their_steps(net: nn.Module, loader: DataLoader) -> Callable[[], Iterator[torch.Tensor]]:
    net.train()
    criterion, optimizer = SqrHingeLoss(), torch.optim.Adam(net.parameters(), lr=0.02)

    def turn() -> Iterator[torch.Tensor]:
        for images, labels in itertools.islice(loader, STEPS):
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
    with hardware.autocast(CPU):
        for _ in range(STEPS):
            yield conv(images)


def _flop(net: nn.Module) -> int:
    """Return the floating point operations of a training step, multiplications and additions counted apart."""
    with FlopCounterMode(display=False) as counter:
        net(torch.randn(BATCH, 3, 32, 32)).sum().backward()
    net.zero_grad()
    return counter.get_total_flops()
