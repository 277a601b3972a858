"""Save and load nets: one .safetensors file each, with the run's config in its header and a checksum of everything."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as serialize
from torch import nn

from ..common.errors import CourseError
from ..common.files import write_atomically
from ..nets import packing, weights
from ..nets.architectures import build, spec_of

Tensors = dict[str, torch.Tensor]


def save(net: nn.Module, path: str | Path, config: dict, packed: bool = False) -> Path:
    """Write the weights of `net`.

    Args:
        net: The net.
        path: The file to write.
        config: Goes into the header; `load` needs the keys "name" and "arch".
        packed: Store quantized weights as packed integers, without latent weights, and float weights in the precision
            in which the training multiplied with them (half the size if that was bf16).

    Returns:
        The path.

    Raises:
        CourseError: If the file cannot be written, or if `packed` weights would not be exactly the same.
    """
    if packed:
        packing.check_packing(net)
        tensors, layers = packing.pack_net(net)
        if config.get("precision") == "bf16":
            tensors = packing.as_bf16(net, tensors)
        return write(Path(path), tensors, {"config": config, "packed": layers})
    return write(Path(path), net.state_dict(), {"config": config})


def read_config(path: str | Path) -> dict:
    """Return the config in a checkpoint's header.

    Raises:
        CourseError: If the file is missing or damaged.
    """
    return read(Path(path))[1]["config"]


def load(path: str | Path, net: nn.Module | None = None) -> nn.Module:
    """Return a trained net in eval mode.

    Args:
        path: A file that `save` wrote.
        net: Load the weights into this net, instead of building the one that the file's config names.

    Raises:
        CourseError: If the file is missing or damaged, or if its weights do not fit the net.
    """
    path = Path(path)
    tensors, header = read(path)
    config = header["config"]
    if net is None:
        net = _build(config, path)
    device = next(net.parameters()).device
    if "packed" in header:
        try:
            tensors = packing.unpack_net(net, tensors, header["packed"])
        except (KeyError, ValueError, TypeError) as error:
            raise CourseError(f"{path} is damaged ({error}): replace it with a fresh copy.") from error
    weights.initialize_scales(net)
    problem = misfits(net, tensors) or _other_scheme(net, config)
    if problem:
        spec = spec_of(net)
        raise CourseError(
            f"{path} holds a {config.get('name')} ({config.get('arch')}), which does not fit this {spec.name} "
            f"({spec.arch}): {problem}; build the net that the file was saved from, or leave the net out."
        )
    net.load_state_dict(tensors)
    return net.to(device).eval()  # Brevitas creates new parameters on the CPU when it loads


def misfits(net: nn.Module, tensors: Tensors) -> str:
    """Return in which tensors, at most three, `tensors` do not fit `net`; return an empty string if they fit."""
    own = net.state_dict()
    items = [f"{key} is missing from the file" for key in own if key not in tensors]
    items += [f"{key} is not in the net" for key in tensors if key not in own]
    items += [
        f"{key} is {tuple(tensors[key].shape)} in the file and {tuple(own[key].shape)} in the net"
        for key in own
        if key in tensors and own[key].shape != tensors[key].shape
    ]
    return "; ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")


def write(path: Path, tensors: Tensors, header: dict) -> Path:
    """Write tensors and a header of JSON values, with their checksum; return the path."""
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    metadata = {key: json.dumps(value) for key, value in header.items()}
    metadata["sha256"] = digest(plain, metadata)
    # safetensors' own save_file also uses a temporary file, but leaves it behind when the process is killed.
    write_atomically(path, lambda temporary: temporary.write_bytes(serialize(plain, metadata)))
    return path


def read(path: Path) -> tuple[Tensors, dict]:
    """Return what `write` wrote.

    Raises:
        CourseError: If the file is missing, damaged, or not a checkpoint.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is not a dictionary
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise CourseError(f"{path} is missing: train the net first, or name another file.") from error
    except Exception as error:  # a damaged file can raise almost anything
        raise CourseError(f"{path} is damaged ({error}): delete it and train the net again.") from error
    if "config" not in metadata:
        raise CourseError(f"{path} is not a checkpoint of this course: there is no config in its header.")
    if metadata.pop("sha256", None) != digest(tensors, metadata):
        raise CourseError(f"{path} is damaged (checksum mismatch): delete it and train the net again.")
    return tensors, {key: json.loads(value) for key, value in metadata.items()}


def _build(config: dict, path: Path) -> nn.Module:
    try:
        size = config.get("image_size", 32)
        return build(config["name"], config["arch"], classes=config.get("classes", 10), image_size=size)
    except (KeyError, CourseError) as error:
        raise CourseError(
            f"{path} holds a {config.get('name')} ({config.get('arch')}), which is not a net of the course: build the "
            "net that the file was saved from, and load the weights into it."
        ) from error


def _other_scheme(net: nn.Module, config: dict) -> str:
    """Return a sentence if `config` names another scheme than that of `net`, else an empty string.

    The names of the tensors are not enough to tell two schemes apart.
    """
    names = net.spec.name if hasattr(net, "spec") else None, config.get("name")
    return "" if None in names or len(set(names)) == 1 else f"it is quantized as {names[1]}, not as {names[0]}"


def digest(tensors: Tensors, metadata: dict[str, str]) -> str:
    """Return the SHA-256 of the names, types, shapes and bytes of `tensors`, and of the header."""
    sha = hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        sha.update(f"{key} {tensor.dtype} {list(tensor.shape)} ".encode())
        sha.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    for key, text in sorted(metadata.items()):
        sha.update(f"{key} {text} ".encode())
    return sha.hexdigest()
