"""`fit`, the training loop of the course, which runs on a laptop, on a GPU and in several processes."""

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import update_bn

from ..common import distributed, hardware, interrupts
from ..common.errors import CourseError, check_callable
from ..common.progress import progress
from ..data.batches import Batches, progressive_side
from ..data.dataset import Dataset
from ..nets import weights
from ..nets.fused_quantizers import fused
from ..nets.recipe import Recipe
from . import checkpoint, overwriting
from .checks import check_training
from .evaluation import Tally, as_logits, evaluate, memory_format
from .history import History
from .optimizers import make_optimizers, set_learning_rates
from .precision import LOSS_SCALE, unscale_gradients
from .run import Run, identity

Batch = tuple[torch.Tensor, torch.Tensor]  # images and labels
BATCHNORM_BATCHES = 20
print_line = functools.partial(print, flush=True)  # flushed, so that a log file can be followed during a training


def fit(
    net: nn.Module,
    dataset: Dataset,
    epochs: int,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    folder: str | Path | None = None,
    overwrite: bool = False,
    on_epoch: Callable[[History], None] | None = None,
    on_batch: Callable[[float], None] | None = None,
    log: Callable[[str], None] = print_line,
) -> History:
    """Train a net in place. Its attribute `class_names` then has the names of the classes, for exported files.

    Ctrl-C, the notebook's stop button, or a KeyboardInterrupt raised by a callback ends the training, and the history
    so far is returned. Processes started by torchrun train one net together; process 0 prints and writes files.

    Args:
        net: The net to train.
        dataset: The net is trained on its training images and evaluated on its test images.
        epochs: Number of passes over the training images.
        recipe: How to train; by default the net's own recipe.
        seed: Determines the order and the augmentation of the images, and what dropout draws.
        device: Where to train; by default the fastest device.
        folder: Where to save history (`<name>.npy` and `.json`), weights (`<name>.safetensors`) and, after each epoch,
            a resume file. To continue an interrupted training, repeat the call. On a CPU, the result is then bit for
            bit that of an uninterrupted training.
        overwrite: Whether the files of a run with other settings may be replaced. Without it, only a finished run with
            the same settings and at most as many epochs is replaced, and an interrupted run is only continued. The
            files of a finished run stay until this one is finished.
        on_epoch: Called with the history after each epoch.
        on_batch: Called after each batch with the share of the training that is done (0 to 1), instead of showing a
            progress bar.
        log: Called with each line of output.

    Returns:
        The history of the training.

    Raises:
        CourseError: If the net cannot be trained on this data, the folder has a run that must not be replaced or
            cannot be written, another process is training this net there, memory runs out, or the loss becomes
            NaN or infinite.
        ValueError: If an argument has the wrong type or is out of range.
    """
    run = Run.plan(net, dataset, epochs, recipe=recipe, seed=seed, device=device, folder=folder)
    return train(run, net, dataset, overwrite=overwrite, on_epoch=on_epoch, on_batch=on_batch, log=log)


@torch.inference_mode(False)
@torch.enable_grad()  # an earlier cell may have switched gradients off
def train(
    run: Run,
    net: nn.Module,
    dataset: Dataset,
    *,
    overwrite: bool = False,
    on_epoch: Callable[[History], None] | None = None,
    on_batch: Callable[[float], None] | None = None,
    log: Callable[[str], None] = print_line,
) -> History:
    """Carry out a run that `Run.plan` planned for `net` and `dataset`; see `fit`."""
    recipe, epochs, full = run.recipe, run.epochs, dataset.train_images.shape[-1]
    _check_callbacks(on_epoch, on_batch, log)
    if run.device.type == "cpu":
        hardware.keep_freed_memory()
    distributed.check_same(
        identity(run.config), "Use the same data, versions of the course and environment variables on all machines."
    )
    distributed.check_last_batch(len(dataset.train_labels), recipe.batch_size)
    if distributed.rank():
        log = _silent
    for warning in check_training(net, dataset, recipe):
        log(warning)
    overwriting.check(run, overwrite)  # before the lock, which creates files
    advice = f"train with a smaller batch_size than {recipe.batch_size}, or shut down the kernels of other notebooks"
    with run.lock(), hardware.enough_memory(advice):
        for line in overwriting.check(run, overwrite):  # again: another process may have just finished this run
            log(line)
        history, optimizers = _start(run, net, log)
        checkpoint.name_classes(net, dataset.classes)
        train_batches, test_batches = _batches(dataset, run, _layout(run, net))
        growing = min(int(recipe.progressive_resizing * epochs), epochs - 1)  # the last epoch has full-size images
        total = epochs * len(train_batches)
        bar = progress(title=run.name, total=total, unit="batch", shown=on_batch is None)
        bar.update(len(history) * len(train_batches))
        on_batch = on_batch or (lambda _: bar.update())
        try:
            for epoch in range(len(history), epochs):
                start = time.perf_counter()
                side = progressive_side(epoch / growing, full) if growing else full
                with _seeded(run, epoch):
                    train_loss, train_acc = train_epoch(net, train_batches, run, epoch, side, optimizers, on_batch)
                    recalibrate_batchnorm(net, train_batches, epoch, side)
                test_loss, test_acc = evaluate(net, test_batches, side)
                seconds = time.perf_counter() - start
                with interrupts.delayed():  # so that what is in memory and what is on disk are the same epochs
                    history.append(epoch + 1, train_loss, train_acc, test_loss, test_acc, seconds)
                    bar.clear()  # so that the line does not end up beside the bar
                    log(history.last_line() + (f", images of {side} x {side}" if side < full else ""))
                    run.save_epoch(history, net, optimizers)
                if on_epoch:
                    on_epoch(history)
        except KeyboardInterrupt:
            bar.clear()
            log(f"{run.name}: stopped in epoch {len(history) + 1} of {epochs}; finished epochs: {len(history)}")
        finally:
            bar.close()
        for warning in weights.warnings(net):
            log(warning)
        with contextlib.suppress(KeyboardInterrupt), interrupts.delayed():  # too late: the training is finished
            if len(history) == epochs:
                run.finish(history, net)
    del train_batches, test_batches, optimizers
    hardware.release_freed_memory()
    return history


def train_epoch(
    net: nn.Module,
    batches: Batches,
    run: Run,
    epoch: int,
    side: int,
    optimizers: list[torch.optim.Optimizer],
    on_batch: Callable[[float], None],
) -> tuple[float, float]:
    """Train on all batches once; return the mean loss (as in `evaluate`, without label smoothing) and the accuracy."""
    tally, first, total_steps = Tally(), epoch * len(batches), run.epochs * len(batches)
    waits_for_nothing = batches.labels.device.type == "cpu"  # a GPU would have to finish the step first
    with fused(net):
        for step, (images, labels) in enumerate(_in_training_mode(net, batches.epoch(epoch, side)), start=first):
            set_learning_rates(optimizers, step / total_steps, run.recipe.final_lr)
            tally.add(train_step(net, images, labels, optimizers, run.recipe, run.config["precision"]), labels)
            if waits_for_nothing and not tally.losses[-1].isfinite():
                break
            on_batch((step + 1) / total_steps)
    broken = tally.first_loss_that_is_not_finite()
    if broken is not None:
        what, way_out = "The loss", ""
        if run.config["precision"] == "fp16":
            what, way_out = "The loss, or a gradient in fp16,", ", or without fp16 on another device, such as 'cpu'"
        raise CourseError(
            f"{what} became NaN or infinite in step {first + broken + 1} (epoch {epoch + 1}): look for a broken "
            "quantizer with weights.report(net), or train with a smaller learning rate than "
            f"lr={run.recipe.lr}{way_out}."
        )
    return tally.means()


def train_step(
    net: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    optimizers: list[torch.optim.Optimizer],
    recipe: Recipe,
    precision: str | None = None,
) -> torch.Tensor:
    """Update the net with one batch.

    Args:
        net: The net, in training mode.
        images: Float32 (n, channels, h, w), as `Batches` yields them.
        labels: Int64 (n,).
        optimizers: The optimizers of `make_optimizers`.
        recipe: Only its label smoothing is used.
        precision: "bf16", "fp16" or "fp32"; by default bf16 where the device is fast at it, else fp32.

    Returns:
        The logits (n, classes) for this batch, computed before the update. If a gradient in fp16 is NaN or infinite,
        all logits are NaN.
    """
    if precision is None:  # `fit` gives it, and images in the fastest memory format
        precision = hardware.precision(images.device)
        images = images.contiguous(memory_format=memory_format(net, images.device))
    with hardware.autocast(images.device, precision):
        logits = as_logits(net(images))
    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    if distributed.world_size() > 1:
        loss = loss * distributed.shard_weight(len(labels), loss.device)
    (loss * LOSS_SCALE if precision == "fp16" else loss).backward()
    distributed.all_reduce_gradients(net)
    if precision == "fp16":
        logits = logits.masked_fill(unscale_gradients(net), torch.nan)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return logits.detach()


def recalibrate_batchnorm(net: nn.Module, batches: Batches, epoch: int, side: int) -> None:
    """Compute the running statistics of all BatchNorms anew, from a few training batches.

    Running averages lag behind weights that change fast: once many signs have flipped, the averages no longer describe
    the net. Computing them anew takes 3 % of the time of an epoch and gains one point of accuracy for binary nets.
    """
    first = itertools.islice(batches.epoch(epoch, side), BATCHNORM_BATCHES)
    with fused(net):
        update_bn((images for images, _ in _in_training_mode(net, first)), net)


def _in_training_mode(net: nn.Module, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches, and put `net` into training mode before each one.

    A callback, or another cell while a panel trains, may have called `predict`, which leaves the net in eval mode.
    """
    net.train()  # all of its modules, whatever their modes are
    for batch in batches:
        if not net.training:
            net.train()
        yield batch


@contextlib.contextmanager
def _seeded(run: Run, epoch: int) -> Iterator[None]:
    """Seed what draws random numbers inside a net, such as dropout, so that a resumed training draws the same ones."""
    devices = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # the random numbers of the reader's own code stay as they are
        torch.manual_seed((run.config["seed"] * 1_000_003 + epoch) * 1009 + distributed.rank())
        yield


def _layout(run: Run, net: nn.Module) -> torch.memory_format:
    return memory_format(net, run.device, run.config["precision"])


def _start(run: Run, net: nn.Module, log: Callable[[str], None]) -> tuple[History, list[torch.optim.Optimizer]]:
    """Return the history and the optimizers of a new or resumed training; move the net to its device."""
    if distributed.world_size() > 1:
        weights.initialize_scales(net)  # `read_resume` does so in process 0
    resumed = distributed.from_first(lambda: run.read_resume(net))
    if resumed:
        # Before the move, because Brevitas creates new parameters on the CPU when it loads.
        weights.load_training_state(net, resumed.net)
    hardware.move(net, run.device, _layout(run, net))
    distributed.convert_sync_batchnorm(net)
    optimizers, history = make_optimizers(net, run.recipe), History(run.config)
    if resumed:
        resumed.restore(optimizers)
        history.rows = resumed.rows
        log(f"{run.name}: resumed after epoch {len(history)} of {run.epochs}")
    distributed.check_same(
        {"weights": checkpoint.digest(weights.training_state(net), {}) if distributed.world_size() > 1 else ""},
        "Give the nets of all processes the same initial weights, with torch.manual_seed before they are made.",
    )
    return history, optimizers


def _batches(dataset: Dataset, run: Run, layout: torch.memory_format) -> tuple[Batches, Batches]:
    recipe = run.recipe
    train_batches = Batches(
        dataset.train_images,
        dataset.train_labels,
        recipe.batch_size,
        shuffle=True,
        augment=recipe.augment,
        translate=recipe.translate,
        cutout=recipe.cutout,
        seed=run.config["seed"],
        device=run.device,
        memory_format=layout,
    )
    test = dataset.test_images, dataset.test_labels
    return train_batches, Batches(*test, 1000, device=run.device, memory_format=layout)


def _check_callbacks(on_epoch: object, on_batch: object, log: object) -> None:
    if on_epoch is not None:
        check_callable("on_epoch", on_epoch, "the history, or None")
    if on_batch is not None:
        check_callable("on_batch", on_batch, "the share of the training that is done, or None")
    check_callable("log", log, "a line of output, such as print")


def _silent(_: str) -> None:
    pass
