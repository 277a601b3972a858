"""`Run`: one training, what defines it, and its files on disk."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..common import distributed, hardware, locks, settings
from ..common.errors import MAX_SEED, CourseError, check_whole
from ..common.files import (
    Unreadable,
    as_path,
    check_replaceable,
    check_writable,
    not_written,
    remove_leftovers,
)
from ..data.dataset import Dataset
from ..nets import packing, weights
from ..nets.architectures import spec_of
from ..nets.identity import structure_digest
from ..nets.recipe import Recipe
from . import checkpoint
from .history import ROW, History
from .optimizers import make_optimizers
from .precision import precision
from .schema import MAX_EPOCHS

# Valid file names on every operating system, without path separators.
FILE_NAME = re.compile(r"\w[\w .+-]{0,79}")

# Keys of a config that may differ between the two parts of an interrupted training. ("kB" depends on the trained
# weights: a ternary layer that does not use its third level yet packs like a binary one.)
CIRCUMSTANCES = {
    "kB",
    "processes",
    "device",
    "hardware",
    "precision",
    "versions",
    "date",
    "class_names",  # configs of older runs have none
    "evaluation",
    "test_loss",
    "test_acc",
}

EXPECTED = {"net": "a torch.nn.Module", "dataset": "what `data.load` returns", "recipe": "a `Recipe`, or None"}


def run_name(name: str, seed: int = 0) -> str:
    """Return the name of a run's files without suffix: the net's name, and the seed unless the seed is 0."""
    return name + (f"-seed{seed}" if seed else "")


def identity(config: dict) -> dict:
    """Return the part of a config that decides which run it is; see `CIRCUMSTANCES`."""
    return {key: value for key, value in config.items() if key not in CIRCUMSTANCES}


def differences(one: dict, other: dict) -> list[str]:
    """Return the keys in which two configs describe different runs."""
    return [key for key in one | other if key not in CIRCUMSTANCES and one.get(key) != other.get(key)]


@dataclass
class Resume:
    """The state of a training after an epoch: the rows of its history, and the states of its net and its optimizers."""

    rows: np.ndarray
    net: checkpoint.Tensors
    optimizers: dict[int, dict[int, checkpoint.Tensors]]

    def restore(self, optimizers: list[torch.optim.Optimizer]) -> None:
        """Load the saved state into freshly made `optimizers`."""
        for number, optimizer in enumerate(optimizers):
            state = self.optimizers.get(number, {})  # without gradients, an optimizer has no state
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

    def misfits(self, optimizers: list[torch.optim.Optimizer], names: list[str] | None) -> str:
        """Return in which way the saved state does not fit `optimizers`; return an empty string if it fits.

        Args:
            optimizers: Freshly made ones.
            names: The classes of the saved optimizers; None if the file does not name them.
        """
        own, numbers = _class_names(optimizers), range(len(optimizers))
        if (names is None and set(self.optimizers) != set(numbers)) or names not in (None, own):
            return f"its optimizers are not {' and '.join(own)}"
        for number, optimizer in enumerate(optimizers):
            expected = _layout(_after_one_step(optimizer))
            for index, state in _layout(self.optimizers.get(number, {})).items():
                if state != expected.get(index):
                    return f"the state of {own[number]} for parameter {index} is laid out otherwise"
        return ""


@dataclass
class Run:
    """One training: its config and, in `folder`, its files.

    The files are `<name>.npy` and `<name>.json` (history and config), `<name>.safetensors` (the trained net) and, until
    the training is finished, `<name>.resume.safetensors`. Without a folder, nothing is saved.

    Args:
        config: What was trained (net, data, epochs, seed, recipe), and in which circumstances (hardware, versions).
        folder: Where the files are.
        keeps_finished: Whether the files are those of a finished run. They stay until this run is finished.

    Raises:
        CourseError: If the run's name cannot be the name of a file.
    """

    config: dict
    folder: Path | None = None
    keeps_finished: bool = field(default=False, compare=False)
    _is_locked: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the name before any work is done."""
        if self.folder is not None:
            folder = as_path("folder", self.folder)
            try:
                self.folder = folder.absolute()  # the working directory may change while the run is trained
            except OSError as error:  # the working directory was deleted
                raise not_written(folder, error) from error
        if self.folder and not FILE_NAME.fullmatch(self.name):
            raise CourseError(
                f"{self.name!r} is not a valid file name: give the net a name of up to 80 letters, digits, spaces or "
                ". + - _"
            )

    @classmethod
    def plan(
        cls,
        net: nn.Module,
        dataset: Dataset,
        epochs: int,
        *,
        recipe: Recipe | None = None,
        seed: int = 0,
        device: str | torch.device | None = None,
        folder: str | Path | None = None,
    ) -> "Run":
        """Return the run of a training that has not begun yet; the arguments are those of `fit`."""
        for argument, value, kind in (
            ("net", net, nn.Module),
            ("dataset", dataset, Dataset),
            ("recipe", recipe, Recipe),
        ):
            if not isinstance(value, kind) and not (argument == "recipe" and value is None):
                raise ValueError(f"{argument} is a {type(value).__name__}: pass {EXPECTED[argument]}")
        weights.check_net(net)
        check_whole("epochs", epochs, 1, MAX_EPOCHS)
        check_whole("seed", seed, 0, MAX_SEED)
        dataset.check()
        spec, device = spec_of(net), hardware.find_device(device)
        channels, _, image_size = dataset.train_images.shape[1:]
        config = {
            "name": spec.name,
            "arch": spec.arch,
            "bits": spec.bits,
            "weights": sum(parameter.numel() for parameter in net.parameters()),
            "kB": round(packing.kilobytes(net), 1),
            "init_seed": spec.seed,
            "classes": spec.classes,
            "image_size": image_size,
            # Configs of RGB images have no such key, because those of older runs have none.
            **({} if channels == 3 else {"channels": channels}),
            "net_sha256": structure_digest(net),
            "data": dataset.name,
            "class_names": list(dataset.classes),
            "data_sha256": _data_digest(dataset),
            "train_images": len(dataset.train_labels),
            "test_images": len(dataset.test_labels),
            # Only configs of runs that were evaluated on validation images have this key.
            **({} if dataset.held_out == "test" else {"evaluated_on": dataset.held_out}),
            "epochs": min(epochs, settings.max_epochs() or epochs),
            "seed": seed,
            "recipe": asdict(recipe or spec.recipe),
            "processes": distributed.world_size(),
            "device": str(device),
            "hardware": hardware.describe(device),
            "precision": precision(net, dataset, device),
            "evaluation": "fp32",
            "versions": hardware.versions(),
            "date": date.today().isoformat(),
        }
        return cls(config, folder)

    @classmethod
    def open(cls, folder: str | Path, name: str, seed: int = 0) -> "Run":
        """Return a run whose files are in `folder`.

        Raises:
            CourseError: If its history is missing or damaged, or its config lacks the seed.
        """
        path = as_path("folder", folder) / f"{run_name(name, seed)}.npy"
        config = History.load(path).config
        if "seed" not in config:
            raise CourseError(f"The config of {path} lacks seed: train the net again.")
        return cls(config, folder)

    @property
    def name(self) -> str:
        """The name of the run's files, without suffix."""
        return run_name(self.config["name"], self.config["seed"])

    @property
    def epochs(self) -> int:
        """Number of epochs of the whole training."""
        return self.config["epochs"]

    @property
    def recipe(self) -> Recipe:
        """How the net is trained."""
        return Recipe(**self.config["recipe"])

    @property
    def device(self) -> torch.device:
        """Where the net is trained."""
        return torch.device(self.config["device"])

    @property
    def history_path(self) -> Path:
        """The history's .npy file; the config is in the .json file beside it."""
        return self.folder / f"{self.name}.npy"

    @property
    def weights_path(self) -> Path:
        """The trained net's file."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def resume_path(self) -> Path:
        """The file from which an interrupted training continues."""
        return self.folder / f"{self.name}.resume.safetensors"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Reserve the run's files for this process. Inside the body, the same `Run` can be reserved again.

        Raises:
            CourseError: If the folder cannot be written, or if another process or thread is training this run.
        """
        if not self._writes:
            yield
            return
        if self._is_locked:  # by this object, further up
            yield
            return
        check_writable(self.folder)
        paths = (self.history_path, self.history_path.with_suffix(".json"), self.weights_path, self.resume_path)
        for path in paths:
            check_replaceable(path)
        try:
            with locks.hold(self.folder / f".{self.name}.lock"):
                self._is_locked = True
                for path in paths:
                    remove_leftovers(path)
                yield
        except locks.Busy as holder:
            raise CourseError(
                f"{self.name} is being trained in {self.folder} by {holder}: wait until it has finished, stop it, or "
                "set QAT_RESULTS_DIR to another folder."
            ) from holder
        finally:
            self._is_locked = False

    def finished(self) -> History | None:
        """Return the history if exactly this run is already finished, else None.

        `overwriting.check` says why files cannot be used.

        Raises:
            Unreadable: If the files exist but cannot be read now: a training would replace them.
        """
        if not self.folder or not os.path.exists(self.history_path) or not os.path.exists(self.weights_path):
            return None
        try:
            history, weights_config = History.load(self.history_path), checkpoint.read_config(self.weights_path)
        except Unreadable:
            raise
        except CourseError:
            return None
        is_same = not any(differences(config, self.config) for config in (history.config, weights_config))
        return history if is_same and len(history) == self.epochs else None

    def load_net(self, net: nn.Module | None = None) -> nn.Module:
        """Return the trained net, in eval mode; see `checkpoint.load`."""
        return checkpoint.load(self.weights_path, net)

    def read_resume(self, net: nn.Module) -> Resume | None:
        """Return the state in which the training of `net` was interrupted, or None; print why it cannot be used.

        Raises:
            Unreadable: If the file exists but cannot be read now: a training would replace it.
        """
        if not self.folder or not os.path.exists(self.resume_path):
            return None
        try:
            tensors, header = checkpoint.read(self.resume_path)
            config = header["config"]
            resume = _unflatten(tensors, _epochs(header["rows"], self.epochs))
        except Unreadable:
            raise
        except (CourseError, KeyError, ValueError, TypeError, OverflowError) as error:
            print(f"{self.resume_path} cannot be used, so the training starts again ({error}).")
            return None
        changed = ", ".join(differences(config, self.config))
        if changed:
            print(f"{self.resume_path} is from a training with other settings ({changed}); this one starts again.")
            return None
        problem = checkpoint.misfits(net, resume.net, weights.training_state(weights.initialize_scales(net)))
        if problem:
            print(f"{self.resume_path} is from a net with other layers ({problem}); this training starts again.")
            return None
        problem = resume.misfits(make_optimizers(net, self.recipe), header.get("optimizers"))
        if problem:
            print(f"{self.resume_path} is from another version of the course ({problem}); this training starts again.")
            return None
        before, now = config.get("precision"), self.config["precision"]
        if before not in (None, now):
            print(f"{self.resume_path} is from a training in {before}; the training continues in {now}.")
        return resume

    def save_epoch(self, history: History, net: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
        """Save the state of the training after an epoch, so that it can be resumed; save the history, too."""
        if not self._writes:
            return
        tensors = {f"net.{key}": tensor for key, tensor in weights.training_state(net).items()}
        for number, optimizer in enumerate(optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{index}.{key}": tensor for key, tensor in state.items()}
        header = {"config": self.config, "rows": history.rows.tolist(), "optimizers": _class_names(optimizers)}
        checkpoint.write(self.resume_path, tensors, header)
        if not self.keeps_finished:
            history.save(self.history_path)

    def finish(self, history: History, net: nn.Module) -> None:
        """Add the accuracy of the trained net to the config, save net and history, and remove the resume file."""
        self.config |= {"test_loss": float(history["test_loss"][-1]), "test_acc": float(history["test_acc"][-1])}
        if not self._writes:
            return
        checkpoint.save(net, self.weights_path, self.config)
        history.save(self.history_path)
        self.forget()

    def forget(self) -> None:
        """Remove the resume file, so that the next training starts from the first epoch."""
        if not self.folder:
            return
        try:
            self.resume_path.unlink(missing_ok=True)
        except OSError as error:
            raise not_written(self.resume_path, error) from error

    @property
    def _writes(self) -> bool:
        """Whether this process writes files: only the first of several processes does."""
        return self.folder is not None and distributed.rank() == 0


def _data_digest(dataset: Dataset) -> str:
    """Return a SHA-256 of all images and labels, in their order."""
    sha = hashlib.sha256()
    for tensor in (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels):
        sha.update(f"{tensor.dtype} {list(tensor.shape)} ".encode())
        sha.update(tensor.contiguous().view(-1).numpy())
    return sha.hexdigest()


def _epochs(stored: list, epochs: int) -> np.ndarray:
    """Return the rows of a history that a resume file holds.

    Raises:
        ValueError: If they are not those of the first of `epochs` epochs.
    """
    rows = np.array([tuple(row) for row in stored], ROW)
    if not 0 < len(rows) <= epochs or rows["epoch"].tolist() != list(range(1, len(rows) + 1)):
        raise ValueError(f"its {len(rows)} rows are not those of the first of {epochs} epochs")
    return rows


def _unflatten(tensors: checkpoint.Tensors, rows: np.ndarray) -> Resume:
    net = {key.removeprefix("net."): tensor for key, tensor in tensors.items() if key.startswith("net.")}
    optimizers: dict[int, dict] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, number, index, name = key.split(".")
            optimizers.setdefault(int(number), {}).setdefault(int(index), {})[name] = tensor
    return Resume(rows, net, optimizers)


def _class_names(optimizers: list[torch.optim.Optimizer]) -> list[str]:
    return [type(optimizer).__name__ for optimizer in optimizers]


def _after_one_step(optimizer: torch.optim.Optimizer) -> dict[int, checkpoint.Tensors]:
    """Return the state of an optimizer like `optimizer` after one step; `optimizer` itself does not change."""
    groups = []
    for group in optimizer.param_groups:
        stand_ins = [nn.Parameter(torch.zeros_like(p), requires_grad=p.requires_grad) for p in group["params"]]
        groups.append(group | {"params": stand_ins})
        for stand_in in stand_ins:
            stand_in.grad = torch.zeros_like(stand_in) if stand_in.requires_grad else None
    other = type(optimizer)(groups)
    other.step()
    return other.state_dict()["state"]


def _layout(state: dict[int, checkpoint.Tensors]) -> dict[int, dict[str, tuple]]:
    """Return the shapes and types of an optimizer's state, by parameter and name."""
    return {
        index: {key: (tensor.shape, tensor.dtype) for key, tensor in entry.items()} for index, entry in state.items()
    }
