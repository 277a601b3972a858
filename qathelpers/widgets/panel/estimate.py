"""How long a training will take, before it begins: measured on this machine, with two steps of a fresh net."""

import time

import torch

from ...common import hardware
from ...data.batches import normalize
from ...data.dataset import Dataset
from ...nets import spec_of
from ...training.evaluation import memory_format
from ...training.history import History
from ...training.loop import BATCHNORM_BATCHES, train_step
from ...training.optimizers import make_optimizers
from ...training.precision import precision
from .settings import Settings

FEW, MORE = 16, 64  # images per measured step: two sizes separate the time per step from the time per image
FORWARD = 1 / 3  # of the time of a training step: a forward pass without a backward pass


class Estimates:
    """Estimates of training times, remembered by net, architecture and size of the images."""

    def __init__(self) -> None:
        """Start without any measurement."""
        self._steps: dict[tuple, tuple[float, float]] = {}
        self._rates: dict[tuple, float] = {}

    def learn(self, history: History, dataset: Dataset, settings: Settings) -> None:
        """Remember how long the epochs of a training really took."""
        if len(history):
            images = history.config["train_images"] + FORWARD * history.config["test_images"]
            rate = float(history["seconds"].mean()) / images
            self._rates[(*_key(dataset, settings), settings.batch_size)] = rate

    def known(self, dataset: Dataset, settings: Settings) -> bool:
        """Return whether `seconds` answers without a measurement."""
        key = _key(dataset, settings)
        return key in self._steps or (*key, settings.batch_size) in self._rates

    def seconds(self, dataset: Dataset, settings: Settings, train: int, test: int) -> float:
        """Return the expected duration of a run on so many training and test images, in seconds.

        The first call for a net measures, which takes a fraction of a second.
        """
        key = _key(dataset, settings)
        rate = self._rates.get((*key, settings.batch_size))
        if rate is not None:
            return rate * (train + FORWARD * test) * settings.epochs
        if key not in self._steps:
            self._steps[key] = _measure(dataset, settings)
        per_step, per_image = self._steps[key]
        steps = train / settings.batch_size
        again = min(steps, BATCHNORM_BATCHES) * settings.batch_size
        return settings.epochs * (per_step * steps + per_image * (train + FORWARD * (test + again)))


def _key(dataset: Dataset, settings: Settings) -> tuple:
    return settings.scheme.name, settings.arch, tuple(dataset.train_images.shape[1:])


def _measure(dataset: Dataset, settings: Settings) -> tuple[float, float]:
    """Return the seconds per training step, and in addition per image of the step."""
    device = hardware.best_device()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # dropout draws random numbers
        net = settings.build(dataset)
        kind = precision(net, dataset, device)
        layout = memory_format(net, device, kind)
        hardware.move(net, device, layout)
        recipe = spec_of(net).recipe
        optimizers = make_optimizers(net, recipe)
        net.train()

        def step(count: int) -> float:
            images = normalize(dataset.train_images[:count].to(device)).contiguous(memory_format=layout)
            labels = dataset.train_labels[:count].to(device)
            start = time.perf_counter()
            train_step(net, images, labels, optimizers, recipe, kind)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return time.perf_counter() - start

        few, more = min(FEW, len(dataset.train_labels)), min(MORE, len(dataset.train_labels))
        step(few)  # the first step also allocates memory
        first, second = step(few), step(more)
    if more == few or second <= first:
        return 0.0, second / more
    per_image = (second - first) / (more - few)
    return max(0.0, first - few * per_image), per_image
