"""Save and load nets: one .safetensors file each, the card of its training in the header, and a checksum of it all."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save as serialize
from torch import nn

from . import hardware, packing, parallel
from .data import Data
from .errors import CourseError
from .files import remove_leftovers, write_atomically
from .history import ROW, History
from .nets import build

FILE_NAME = re.compile(r"\w[\w .+-]{0,79}")  # of a run's files: for every system, and never of another folder's

# What may differ between the part of a training before an interruption and the part after it. (`kB` follows from the
# weights: three levels of which one is not used yet pack as two.)
CIRCUMSTANCES = ("kB", "processes", "device", "hardware", "precision", "versions", "date")


def card(net: nn.Module, data: Data, *, epochs: int, seed: int, device: torch.device, recipe: dict) -> dict:
    """Return what describes a training: net, data, seed and recipe, then the circumstances (`CIRCUMSTANCES`)."""
    return {
        "name": getattr(net, "name", type(net).__name__),
        "arch": getattr(net, "arch", type(net).__name__),
        "bits": getattr(net, "bits", "unknown"),
        "weights": sum(parameter.numel() for parameter in net.parameters()),
        "kB": _packed_size(net),
        "init_seed": getattr(net, "seed", None),
        "data": data.name,
        "train_images": len(data.train_labels),
        "test_images": len(data.test_labels),
        "epochs": epochs,
        "seed": seed,
        "recipe": recipe,
        "processes": parallel.size(),
        "device": str(device),
        "hardware": hardware.describe(device),
        "precision": "bf16" if hardware.bf16_is_fast(device) else "fp32",
        "versions": hardware.versions(),
        "date": date.today().isoformat(),
    }


def _packed_size(net: nn.Module) -> float | None:
    try:
        return round(packing.kilobytes(net), 1)
    except ValueError:  # weights that are not numbers: the training will say so
        return None


def stem(card: dict) -> str:
    """Return the name of a run's files without their suffix: the net's, with the seed where it is not 0."""
    return card["name"] + (f"-seed{card['seed']}" if card["seed"] else "")


def differences(one: dict, other: dict) -> list[str]:
    """Return in what the trainings of two cards differ, whatever the circumstances."""
    return [key for key in one | other if key not in CIRCUMSTANCES and one.get(key) != other.get(key)]


def save(net: nn.Module, path: str | Path, card: dict, packed: bool = False) -> Path:
    """Write the weights and the card of `net`; raises CourseError when the folder cannot be written.

    `packed` keeps of quantized weights the integers alone, in as few bits as they need, and not the latent ones, and of
    float ones what the training computed with, half of their bits where its precision was bf16.
    """
    if packed:
        tensors, layers = packing.pack_net(net)
        if card.get("precision") == "bf16":
            tensors = packing.as_bf16(net, tensors)
        return _write(Path(path), tensors, {"card": card, "packed": layers})
    return _write(Path(path), net.state_dict(), {"card": card})


def read_card(path: str | Path) -> dict:
    """Return the card in the header of a checkpoint; raises CourseError when the file is missing or damaged."""
    return _read(Path(path))[1]["card"]


def load(path: str | Path, net: nn.Module | None = None) -> nn.Module:
    """Return the net that `path` holds, or load its weights into `net`, in eval mode.

    Raises CourseError when the file is missing or damaged, or when its weights do not fit `net`.
    """
    path = Path(path)
    tensors, header = _read(path)
    card = header["card"]
    if net is None:
        net = _build(card, path)
    if "packed" in header:
        try:
            tensors = packing.unpack_net(net, tensors, header["packed"])
        except (KeyError, ValueError, TypeError) as error:
            raise CourseError(f"{path} is damaged ({error}): replace it by a fresh copy.") from error
    misfits = _misfits(net, tensors) or _other_scheme(net, card)
    if misfits:
        raise CourseError(
            f"{path} holds a {card.get('name')} ({card.get('arch')}), which does not fit this "
            f"{getattr(net, 'name', type(net).__name__)} ({getattr(net, 'arch', 'own architecture')}): {misfits}; "
            "build the net that the file is for, or leave the net out."
        )
    net.load_state_dict(tensors)
    return net.eval()


def _build(card: dict, path: Path) -> nn.Module:
    try:
        return build(card["name"], card["arch"])
    except (KeyError, CourseError) as error:
        raise CourseError(
            f"{path} holds a {card.get('name')} ({card.get('arch')}), which is not of the course: build the net that "
            "the file is for, and load into it."
        ) from error


@dataclass
class Resume:
    """A training after some epoch: rows of its history, state of its net and of its optimizers."""

    rows: np.ndarray
    net: dict[str, torch.Tensor]
    optimizers: list[dict[int, dict[str, torch.Tensor]]]

    def restore(self, optimizers: list[torch.optim.Optimizer]) -> None:
        """Put the saved state into freshly made `optimizers`."""
        for optimizer, state in zip(optimizers, self.optimizers, strict=True):
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


@dataclass
class Files:
    """The files of one run in `folder`, `name` being its `stem`: .npy, .json, .safetensors, at first a resume file."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        """Accept a string as the folder; raises CourseError for a name that is none of a file in it."""
        self.folder = Path(self.folder)
        if not FILE_NAME.fullmatch(self.name):
            raise CourseError(
                f"{self.name!r} names no file: give the net a name of up to 80 letters, digits, spaces or . + - _"
            )

    @property
    def history(self) -> Path:
        """The history's path; its card lies beside it."""
        return self.folder / f"{self.name}.npy"

    @property
    def weights(self) -> Path:
        """The trained net's path."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def resume(self) -> Path:
        """The path of what an interrupted training goes on from."""
        return self.folder / f"{self.name}.resume.safetensors"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep the run to this process; raises CourseError when another one, or another thread, trains it."""
        lock = FileLock(self.folder / f".{self.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise CourseError(
                f"{self.name} is being trained in {self.folder} by another process: wait for it or stop it, or set "
                "QAT_RESULTS_DIR to another folder."
            ) from error
        except NotImplementedError:  # a network's file system without locks: go on without
            pass
        try:
            for path in (self.history, self.history.with_suffix(".json"), self.weights, self.resume):
                remove_leftovers(path)
            yield
        finally:
            lock.release()

    def finished(self, card: dict) -> History | None:
        """Return the history of a finished run with this card, or None; a damaged one is named and counts as none."""
        if not self.history.exists() or not self.weights.exists():
            return None
        try:
            history, weights_card = History.load(self.history), read_card(self.weights)
        except CourseError as error:
            print(error)
            return None
        other = differences(history.card, card)
        if other:
            print(f"{self.history} is of a run with other settings ({', '.join(other)}) and will be replaced.")
        elif differences(weights_card, card):
            print(f"{self.weights} is of another run than {self.history.name}.")
        elif len(history) == card["epochs"]:
            return history
        return None

    def read_resume(self, card: dict, net: nn.Module) -> Resume | None:
        """Return where the training of `net` was interrupted, or None, saying so when a file is of no use."""
        if not self.resume.exists():
            return None
        try:
            tensors, header = _read(self.resume)
            saved, rows = header["card"], header["rows"]
            resume = _unflatten(tensors, np.array([tuple(row) for row in rows], ROW))
        except (CourseError, KeyError, ValueError, TypeError) as error:
            print(f"{self.resume} is of no use, the training starts anew ({error}).")
            return None
        if differences(saved, card):
            print(f"{self.resume} is of a training with other settings; this one starts anew.")
            return None
        misfits = _misfits(net, resume.net)
        if misfits:
            print(f"{self.resume} is of a net of other layers ({misfits}); this one starts anew.")
            return None
        return resume

    def write_resume(self, history: History, net: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
        """Save the training as it stands after an epoch; the history is readable meanwhile."""
        tensors = {f"net.{key}": tensor for key, tensor in net.state_dict().items()}
        for number, optimizer in enumerate(optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{index}.{key}": tensor for key, tensor in state.items()}
        _write(self.resume, tensors, {"card": history.card, "rows": history.rows.tolist()})
        history.save(self.history)

    def write_final(self, history: History, net: nn.Module) -> None:
        """Save the finished run and remove what was there to resume it."""
        save(net, self.weights, history.card)
        history.save(self.history)
        self.forget()

    def forget(self) -> None:
        """Remove what an interrupted training would go on from, so that the next one starts anew."""
        with suppress(FileNotFoundError):
            self.resume.unlink()


def _unflatten(tensors: dict[str, torch.Tensor], rows: np.ndarray) -> Resume:
    net = {key.removeprefix("net."): tensor for key, tensor in tensors.items() if key.startswith("net.")}
    optimizers: dict[int, dict] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, number, index, name = key.split(".")
            optimizers.setdefault(int(number), {}).setdefault(int(index), {})[name] = tensor
    return Resume(rows, net, [optimizers[number] for number in sorted(optimizers)])


def _write(path: Path, tensors: dict[str, torch.Tensor], header: dict) -> Path:
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    metadata = {key: json.dumps(value) for key, value in header.items()}
    metadata["sha256"] = _digest(plain, metadata)
    # Not by safetensors' own save_file: it has temporary files too, which nobody would remove when it is killed.
    write_atomically(path, lambda temporary: temporary.write_bytes(serialize(plain, metadata)))
    return path


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dict
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise CourseError(f"{path} is missing: train the net first, or name another file.") from error
    except Exception as error:  # a damaged file raises nearly anything
        raise CourseError(f"{path} is damaged ({error}): delete it and train the net again.") from error
    if "card" not in metadata:
        raise CourseError(f"{path} is not a checkpoint of this course: it has no card.")
    if metadata.pop("sha256", None) != _digest(tensors, metadata):
        raise CourseError(f"{path} is damaged (its checksum is another): delete it and train the net again.")
    return tensors, {key: json.loads(value) for key, value in metadata.items()}


def _digest(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of `tensors`, and of the header's texts."""
    sha = hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        sha.update(f"{key} {tensor.dtype} {list(tensor.shape)} ".encode())
        sha.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    for key, text in sorted(metadata.items()):
        sha.update(f"{key} {text} ".encode())
    return sha.hexdigest()


def _other_scheme(net: nn.Module, card: dict) -> str:
    """Return that a card is of another scheme than `net`, or an empty string: their tensors may be called the same."""
    names = getattr(net, "name", None), card.get("name")
    return "" if None in names or len(set(names)) == 1 else f"it is quantized as {names[1]}, not as {names[0]}"


def _misfits(net: nn.Module, tensors: dict[str, torch.Tensor]) -> str:
    """Return what of `tensors` does not fit `net`, at most three items, or an empty string."""
    own = net.state_dict()
    items = [f"{key} is missing in the file" for key in own if key not in tensors]
    items += [f"{key} is not in the net" for key in tensors if key not in own]
    items += [
        f"{key} is {tuple(tensors[key].shape)} in the file and {tuple(own[key].shape)} in the net"
        for key in own
        if key in tensors and own[key].shape != tensors[key].shape
    ]
    return "; ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
