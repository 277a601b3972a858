"""`fit`: the one training loop of the course, read from top to bottom."""

import functools
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

from . import checkpoints, hardware, parallel, settings, weights
from .batches import Batches
from .data import Data
from .errors import MAX_SEED, CourseError, check_whole
from .files import check_writable
from .history import History
from .muon import Muon
from .recipe import Recipe

BATCHNORM_BATCHES = 20
GIVE = {"net": "what `build` returns", "data": "what `data.load` returns", "recipe": "a `Recipe`, or leave it out"}
print_line = functools.partial(print, flush=True)  # a training whose output goes into a file can be followed

__all__ = ["History", "Recipe", "evaluate", "fit"]


def fit(
    net: nn.Module,
    data: Data,
    epochs: int,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    folder: str | Path | None = None,
    on_epoch: Callable[[History], None] | None = None,
    on_batch: Callable[[float], None] | None = None,
    say: Callable[[str], None] = print_line,
) -> History:
    """Train `net` in place on the training images of `data` and return its history.

    `recipe` defaults to the net's own, `device` to the fastest there is. `seed` decides order, shifts and flips. With
    `folder` it saves there `<name>.npy` and `.json` (the history), `<name>.safetensors` (the weights), and after each
    epoch `<name>.resume.safetensors`, from which the same call goes on: on a CPU bit for bit as if never interrupted.
    `on_epoch` is called with the history so far after each epoch, `on_batch`, in the place of a progress bar, with the
    share of the training that is done, 0 to 1, after each batch; `say` with each line. Interrupted by Ctrl-C or the
    notebook's stop button, or by a KeyboardInterrupt from one of these, the training ends and its history so far is
    returned. Started by torchrun, the processes train one net together (`parallel`); process 0 prints and writes.
    Raises CourseError when the loss is no longer a number, `folder` cannot be written, or another process trains this
    net there, ValueError for an argument of another type or range.
    """
    _check(net, data, recipe)
    check_whole("epochs", epochs, 1)
    check_whole("seed", seed, 0, MAX_SEED)
    epochs = min(epochs, settings.max_epochs() or epochs)
    recipe = recipe or getattr(net, "recipe", Recipe())
    device = hardware.find_device(device)
    hardware.keep_freed_memory()
    parallel.check(len(data.train_labels), recipe.batch_size)
    first = parallel.rank() == 0
    say = say if first else lambda line: None
    history = History(checkpoints.card(net, data, epochs=epochs, seed=seed, device=device, recipe=asdict(recipe)))
    files = checkpoints.Files(folder, checkpoints.stem(history.card)) if folder else None
    if files and first:
        check_writable(files.folder)

    with files.lock() if files and first else nullcontext():
        net.to(device, memory_format=torch.channels_last)
        parallel.share_batchnorms(net)
        resumed = files.read_resume(history.card, net) if files else None
        if resumed:
            net.load_state_dict(resumed.net)  # before the optimizers are made: Brevitas may replace parameters in it
            history.rows = resumed.rows
            say(f"{history.name}: resumed after epoch {len(history)} of {epochs}")
        optimizers = make_optimizers(net, recipe)
        if resumed:
            resumed.restore(optimizers)

        train = Batches(
            data.train_images,
            data.train_labels,
            recipe.batch_size,
            shuffle=True,
            augment=recipe.augment,
            max_shift=recipe.max_shift,
            cutout=recipe.cutout,
            seed=seed,
            device=device,
        )
        test = Batches(data.test_images, data.test_labels, 1000, device=device)
        growing = int(recipe.growing * epochs)  # rounded down: the last epoch's images always have their full size
        try:
            for epoch in range(len(history), epochs):
                start = time.perf_counter()
                growth = epoch / growing if growing else 1
                train_loss, train_acc = _train_epoch(net, train, epoch, epochs, growth, optimizers, recipe, on_batch)
                # BatchNorm's running statistics lag behind weights that change fast; when many signs have just flipped,
                # they are of another net. Measured anew they cost 3 % of an epoch and win a point for binary nets.
                update_bn(itertools.islice(train.epoch(epoch, growth), BATCHNORM_BATCHES), net)
                test_loss, test_acc = evaluate(net, test, growth)
                seconds = time.perf_counter() - start
                history.append(
                    epoch=epoch + 1,
                    train_loss=train_loss,
                    train_acc=train_acc,
                    test_loss=test_loss,
                    test_acc=test_acc,
                    seconds=seconds,
                )
                say(
                    f"{history.name} epoch {epoch + 1}/{epochs}: train loss {train_loss:.3f} acc {train_acc:.4f}, "
                    f"test loss {test_loss:.3f} acc {test_acc:.4f}, {seconds:.1f} s" + ", small images" * (growth < 1)
                )
                if files and first:
                    files.write_resume(history, net, optimizers)
                if on_epoch:
                    on_epoch(history)
        except KeyboardInterrupt:
            say(f"{history.name}: stopped in epoch {len(history) + 1} of {epochs}; epochs 1 to {len(history)} are kept")
        for warning in weights.warnings(net):
            say(warning)
        if files and first and len(history) == epochs:
            files.write_final(history, net)
    return history


def _check(net: object, data: object, recipe: object) -> None:
    for argument, value, kind in (("net", net, nn.Module), ("data", data, Data), ("recipe", recipe, Recipe | None)):
        if not isinstance(value, kind):
            raise ValueError(f"{argument} is a {type(value).__name__}: give {GIVE[argument]}")


def make_optimizers(net: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return the optimizers of `recipe` for `net`."""
    makers = {"muon": _muon_and_sgd, "adam": lambda net, recipe: [torch.optim.Adam(net.parameters(), recipe.lr)]}
    optimizers = makers[recipe.optimizer](net, recipe)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def _muon_and_sgd(net: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the weights, latent ones clipped, and SGD for what has one dimension or none."""
    latent = [layer.weight for layer in weights.quantized_layers(net).values()]
    matrices = [p for p in net.parameters() if p.ndim > 1 and all(p is not other for other in latent)]
    vectors = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": matrices}, {"params": latent, "clip": recipe.latent_clip}]
    optimizers = []
    if matrices or latent:
        optimizers.append(Muon([group for group in groups if group["params"]], recipe.lr))
    if vectors:
        optimizers.append(torch.optim.SGD(vectors, recipe.vector_lr, momentum=0.85, nesterov=True))
    return optimizers


def _train_epoch(
    net: nn.Module,
    batches: Batches,
    epoch: int,
    epochs: int,
    growth: float,
    optimizers: list[torch.optim.Optimizer],
    recipe: Recipe,
    on_batch: Callable[[float], None] | None,
) -> tuple[float, float]:
    """Go through `batches` once and return the mean loss and accuracy in training."""
    net.train()
    total_loss, right, seen = 0.0, 0, 0
    bar = batches.epoch(epoch, growth)
    if on_batch is None:
        bar = _progress(bar, len(batches), f"epoch {epoch + 1}/{epochs}")
    for step, (images, labels) in enumerate(bar, start=epoch * len(batches)):
        progress = step / (epochs * len(batches))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * (1 - (1 - recipe.final) * progress)

        with hardware.autocast(images.device):
            logits = net(images).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        (loss * parallel.weight(len(labels), loss.device)).backward()
        parallel.sum_gradients(net)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

        seen += len(labels)
        right += (logits.argmax(1) == labels).sum().item()
        # Without the label smoothing, which would keep it from being compared with the test loss.
        total_loss += F.cross_entropy(logits.detach(), labels, reduction="sum").item()
        if not math.isfinite(total_loss):
            raise CourseError(
                f"The loss is no longer a number in step {step + 1} (epoch {epoch + 1}): look at weights.report(net) "
                f"for a broken quantizer, or train again with a smaller lr than {recipe.lr}."
            )
        if on_batch:
            on_batch((step + 1) / (epochs * len(batches)))
    return _means(total_loss, right, seen, batches)


@torch.no_grad()
def evaluate(net: nn.Module, batches: Batches, growth: float = 1) -> tuple[float, float]:
    """Return the mean cross-entropy (nats) and the accuracy (0 to 1) of `net` on `batches`, in eval mode.

    With a `growth` below 1 on smaller images (`batches.shrink`): a net that has seen no others knows no others.
    """
    net.eval()
    total_loss, right, seen = 0.0, 0, 0
    for images, labels in batches.epoch(0, growth):
        with hardware.autocast(images.device):
            logits = net(images).float()
        total_loss += F.cross_entropy(logits, labels, reduction="sum").item()
        right += (logits.argmax(1) == labels).sum().item()
        seen += len(labels)
    return _means(total_loss, right, seen, batches)


def _means(total_loss: float, right: int, seen: int, batches: Batches) -> tuple[float, float]:
    """Return mean loss and accuracy over the images of all processes."""
    total_loss, right, seen = parallel.sum_of([total_loss, right, seen], batches.labels.device)
    return total_loss / seen, right / seen


def _progress(batches: Iterator, count: int, title: str) -> tqdm:
    """Return a bar that disappears when done, shown in terminals and notebooks, not in log files."""
    ipython = sys.modules.get("IPython")
    shown = sys.stdout.isatty() or (ipython is not None and ipython.get_ipython() is not None)
    return tqdm(batches, title, count, leave=False, file=sys.stdout, disable=not shown, mininterval=0.5, ncols=80)
