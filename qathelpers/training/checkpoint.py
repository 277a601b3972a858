"""Save and load nets: one .safetensors file each, with the run's config in its header and a checksum of everything."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as serialize
from torch import nn

from ..common.errors import CourseError, check_type, is_out_of_memory, raise_if_of_the_machine
from ..common.files import PYTORCH, SAFETENSORS, as_path, check_readable, format_of, unreadable, write_atomically
from ..nets import packing, weights
from ..nets.architectures import NetSpec, architecture, build, spec_of
from ..nets.identity import structure_digest
from ..nets.schemes import SCHEMES
from . import schema

Tensors = dict[str, torch.Tensor]

CONVERT = (
    "load it in your own code with torch.load(path, weights_only=True), pass the weights to net.load_state_dict, and "
    "save the net with checkpoint.save"
)
GIVE_NET = "build the net that the file was saved from, and load the weights into it with checkpoint.load(path, net)"


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
        CourseError: If an argument has the wrong type, `config` has something that JSON cannot hold, the file cannot be
            written, or `packed` weights would not be exactly the same.
    """
    weights.check_net(net)
    path = as_path("path", path)
    _check_config(config)
    check_type("packed", packed, bool, "True or False")
    if packed:
        packing.check_packing(net)
        tensors, layers = packing.pack_net(net)
        if config.get("precision") == "bf16":
            tensors = packing.as_bf16(net, tensors)
        return write(path, tensors, {"config": config, "packed": layers})
    return write(path, net.state_dict(), {"config": config})


def _check_config(config: object) -> None:
    check_type("config", config, dict, "a dict, such as history.config, or {}")
    for key, value in config.items():
        check_type(f"the key {key!r} of config", key, str, "a string")
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise CourseError(
                f"config[{key!r}] is a {type(value).__name__}, which cannot be written ({error}): pass numbers, "
                "strings, lists and dicts only."
            ) from error


def read_config(path: str | Path) -> dict:
    """Return the config in a checkpoint's header.

    Raises:
        CourseError: If the file is missing, cannot be read, or is not a checkpoint of the course.
    """
    return read(as_path("path", path))[1]["config"]


def config_of_any(path: str | Path) -> dict:
    """Return the config in a checkpoint's header; that of another program's .safetensors file is empty.

    Raises:
        CourseError: If the file is missing, damaged, or has another format.
    """
    return _read(as_path("path", path), foreign=True)[1]["config"]


def load(path: str | Path, net: nn.Module | None = None) -> nn.Module:
    """Return a trained net in eval mode.

    Args:
        path: A file that `save` wrote. If `net` is given, it can also be a .safetensors file of another program. Such a
            file does not say how its net was quantized, so only names, shapes and types of the tensors are compared.
        net: Load the weights into this net, instead of building the one that the file's config names.

    Raises:
        CourseError: If the file is missing, cannot be read or has another format, or if its weights do not fit the net.
        ValueError: If `net` is not a net.
    """
    return load_with_config(path, net)[0]


def load_with_config(path: str | Path, net: nn.Module | None = None) -> tuple[nn.Module, dict]:
    """Return a trained net in eval mode, and the config in the header of its file; see `load`."""
    path = as_path("path", path)
    if net is not None and not isinstance(net, nn.Module):
        raise ValueError(f"net is a {type(net).__name__}: pass a torch.nn.Module, or leave it out")
    if net is not None:
        weights.check_net(net, needs_values=False)
    tensors, header = _read(path, foreign=net is not None)
    config, is_given = header["config"], net is not None
    if net is None:
        net = _build(config, path, tensors)
    device = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    other = _other_structure(net, config)  # before unpacking, which replaces quantizers of the net
    tensors, layers = _unwrapped(net, tensors, header.get("packed", {}))
    if "packed" in header and not other:
        try:
            tensors = packing.unpack_net(net, tensors, layers)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
            raise_if_of_the_machine(error)
            raise CourseError(f"{path} is damaged ({error}): replace it with a fresh copy.") from error
    still_packed = "packed" in header and other
    problem = ("" if still_packed else misfits(net, tensors)) or other or _other_scheme(net, config)
    if problem:
        spec = spec_of(net)
        advice = "build the net that the file was saved from"
        if not is_given:
            advice = GIVE_NET
        elif inner := _inner(net, tensors):
            advice = f"load the weights into net.{inner}"
        elif _is_known(config):
            advice += ", or leave the net out"
        raise CourseError(
            f"{path} {_content(config)}, which does not fit this {spec.name} ({spec.arch}): {problem}; {advice}."
        )
    name_classes(net, config.get("class_names"))
    net.load_state_dict(tensors, strict=False)  # `misfits` has compared all names; late parameters may be missing
    return net.to(device).eval(), config  # Brevitas creates new parameters on the CPU when it loads


def name_classes(net: nn.Module, names: Sequence[str] | None) -> None:
    """Note on `net` the names of the classes of its data set, for exported files; None leaves what it knows."""
    if names is not None:
        with contextlib.suppress(AttributeError):  # a property of the reader's own net that cannot be set
            net.class_names = tuple(names)


def _other_structure(net: nn.Module, config: dict | None) -> str:
    """Return a sentence if the file is from a net with other quantizers or layers; names and shapes can agree."""
    saved = (config or {}).get("net_sha256")
    if saved is None or saved == structure_digest(net):
        return ""
    return "its layers or quantizers have changed since the file was saved (net_sha256 differs)"


def misfits(net: nn.Module, tensors: Tensors, own: Tensors | None = None) -> str:
    """Return in which tensors, at most three, `tensors` do not fit `net`; return an empty string if they fit.

    Args:
        net: The net.
        tensors: The tensors of a file. They may, but need not, contain the late parameters of the net.
        own: What the file has to contain; by default the state_dict of the net.
    """
    own = net.state_dict() if own is None else own
    late = weights.late_parameters(net)
    own = own | {key: parameter for key, parameter in late.items() if key in tensors}
    both = [key for key in own if key in tensors]
    items = [f"{key} is missing from the file" for key in own if key not in tensors]
    items += [f"{key} is not in the net" for key in tensors if key not in own]
    items += [
        f"{key} is {tuple(tensors[key].shape)} in the file and {tuple(own[key].shape)} in the net"
        for key in both
        if own[key].shape != tensors[key].shape
    ]
    items += [
        f"{key} is {tensors[key].dtype} in the file and {own[key].dtype} in the net"
        for key in both
        if _kind(tensors[key]) != _kind(own[key])
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
        Unreadable: If the file exists but cannot be read now.
        CourseError: If the file is missing, damaged, or not a checkpoint of the course.
    """
    return _read(path, foreign=False)


def _read(path: Path, foreign: bool) -> tuple[Tensors, dict]:
    """Return tensors and header; if `foreign`, those of another program's .safetensors file have an empty config."""
    check_readable(path, "a checkpoint", "train the net first, or name another file")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            ours = "config" in metadata and "sha256" in metadata
            if not ours and not foreign:
                raise CourseError(
                    f"{path} is a .safetensors file of another program (it has no config of the course): {GIVE_NET}."
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is not a dictionary
    except CourseError:
        raise
    except Exception as error:  # a damaged file can raise almost anything
        if isinstance(error, OSError) or is_out_of_memory(error):
            raise unreadable(path, error) from error
        raise _not_a_checkpoint(path, error) from error
    return tensors, _header(path, tensors, metadata) if ours else {"config": {}}


def _header(path: Path, tensors: Tensors, metadata: dict[str, str]) -> dict:
    """Return the header of a checkpoint of the course, after a check of the whole file."""
    if metadata.pop("sha256") != digest(tensors, metadata):
        raise CourseError(
            f"{path} is damaged, or another program has changed it (checksum mismatch): replace it with a fresh copy, "
            "or train the net again."
        )
    try:
        header = {key: json.loads(value) for key, value in metadata.items()}
    except (ValueError, RecursionError) as error:
        raise CourseError(f"The header of {path} is not JSON ({error}): replace the file with a fresh copy.") from error
    for key, check in (("config", schema.problem_with), ("packed", schema.problem_with_packed)):
        if key in header and (problem := check(header[key])):
            raise CourseError(
                f"{key} in the header of {path} {problem}: save the net again with checkpoint.save, or replace the "
                "file with a fresh copy."
            )
    return header


def _not_a_checkpoint(path: Path, error: Exception) -> CourseError:
    kind = format_of(path)
    if kind == PYTORCH:
        return CourseError(f"{path} is {kind}, not a checkpoint of the course: {CONVERT}.")
    if kind == SAFETENSORS:
        return CourseError(
            f"{path} is an incomplete or damaged .safetensors file ({error}): replace it with a fresh copy, or move it "
            "to another folder and train the net again."
        )
    if kind:
        return CourseError(f"{path} is {kind}, not a checkpoint: name the .safetensors file of a net.")
    return CourseError(
        f"{path} is damaged or from another program ({error}): replace it with a checkpoint, or move it to another "
        "folder and train the net again."
    )


def _unwrapped(net: nn.Module, tensors: Tensors, layers: dict) -> tuple[Tensors, dict]:
    """Remove the prefix that a wrapper of the saved net added to every name, unless the net itself has such names.

    DataParallel adds "module.", torch.compile "_orig_mod.", and a module that holds the net the name of its attribute.
    """
    own, parts = net.state_dict().keys(), next(iter(tensors), "").split(".")
    if own & tensors.keys():
        return tensors, layers
    for count in range(1, len(parts)):
        prefix = ".".join(parts[:count]) + "."
        names = {key.removeprefix(prefix) for key in tensors}
        if all(key.startswith(prefix) for key in tensors) and own & names:
            tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
            layers = {key.removeprefix(prefix): layer for key, layer in layers.items()}
            break
    return tensors, layers


def _inner(net: nn.Module, tensors: Tensors) -> str:
    """Return the name of the module inside a wrapper, such as DataParallel, that has the names in `tensors`, or ""."""
    children = ((name, child.state_dict().keys()) for name, child in net.named_children())
    return next((name for name, keys in children if keys and keys == tensors.keys()), "")


def _build(config: dict, path: Path, tensors: Tensors) -> nn.Module:
    if not {"name", "arch"} <= config.keys():
        raise CourseError(f"{path} {_content(config)}: {GIVE_NET}.")
    if not _is_known(config):
        raise CourseError(f"{path} {_content(config)}, which is not registered here: register it, or {GIVE_NET}.")
    try:
        sizes = {"classes": 10, "image_size": 32, "channels": 3}
        sizes |= {key: config[key] for key in sizes if key in config}
        _check_size(config["arch"], sizes, tensors)
        return build(config["name"], config["arch"], config.get("init_seed", 0), **sizes)
    except Exception as error:  # a config can hold any values, and a net of your own can raise anything
        raise_if_of_the_machine(error)
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")  # PyTorch can add a stack trace
        raise CourseError(f"{path} {_content(config)}, which cannot be built here ({reason}): {GIVE_NET}.") from error


def _check_size(arch: str, sizes: dict[str, int], tensors: Tensors) -> None:
    """Check that a file can hold the weights of a net, before memory is taken for the net.

    Raises:
        ValueError: If the file has less than one bit per weight.
    """
    try:
        with torch.device("meta"):  # no memory; quantizers cannot be built there, so the float net stands for all
            weights_of_net = sum(parameter.numel() for parameter in build("PytorchNN", arch, **sizes).parameters())
    except Exception:  # an architecture of your own may need a real device
        return
    stored = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if weights_of_net > 8 * stored:
        raise ValueError(f"the net has {weights_of_net:,} weights, but the file has {stored:,} bytes")


def _content(config: dict) -> str:
    """Return in words which net a file with this config holds."""
    if not config.keys() & {"name", "arch"}:
        return "does not say which net it holds"
    return f"holds a {config.get('name')} ({config.get('arch')})"


def _is_known(config: dict) -> bool:
    """Return whether the scheme and the architecture that a config names are registered."""
    try:
        architecture(config.get("arch"))
    except CourseError:
        return False
    return isinstance(config.get("name"), str) and config["name"] in SCHEMES


def _kind(tensor: torch.Tensor) -> tuple[bool, bool]:
    """Return what may not change when a tensor is loaded: integers of another program are not weights, for example."""
    return tensor.is_floating_point(), tensor.is_complex()


def _other_scheme(net: nn.Module, config: dict) -> str:
    """Return a sentence if `config` names another scheme than that of `net`, else an empty string.

    The names of the tensors are not enough to tell two schemes apart.
    """
    spec = getattr(net, "spec", None)
    names = spec.name if isinstance(spec, NetSpec) else None, config.get("name")
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
