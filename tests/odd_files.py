"""Files that are not what the course expects: those of other programs, of other users, incomplete ones."""

import bz2
import contextlib
import gzip
import io
import json
import os
import pickle
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from qathelpers.nets import build

NOBODY = 65534


def state():
    return build("BinaryNN", "lenet").state_dict()


def torch_zip(path):
    torch.save(state(), path)


def torch_legacy(path):
    torch.save(state(), path, _use_new_zipfile_serialization=False)


def torch_with_optimizer(path):
    torch.save({"epoch": 3, "state_dict": state(), "optimizer": {}}, path)


def torch_data_parallel(path):
    torch.save({f"module.{key}": tensor for key, tensor in state().items()}, path)


def torch_whole_net(path):
    torch.save(torch.nn.Linear(2, 2), path)


def torch_script(path):
    with warnings.catch_warnings(action="ignore"):  # it is deprecated, but such files exist
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)


def torch_half(path):
    torch_zip(path)
    path.write_bytes(path.read_bytes()[:5000])


def pickled(protocol):
    return lambda path: path.write_bytes(pickle.dumps({"weights": [1.0]}, protocol=protocol))


def content(data):
    return lambda path: path.write_bytes(data)


def packed(pack):
    return lambda path: path.write_bytes(pack(b"the weights" * 100))


def zipped(name):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")

    return write


def tarred(path):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("weights"))


def picture(format):
    return lambda path: Image.new("RGB", (8, 8)).save(path, format)


def array(values):
    def write(path):
        with open(path, "wb") as file:
            np.save(file, values)

    return write


def arrays(path):
    with open(path, "wb") as file:
        np.savez(file, weight=np.zeros(3))


def tensors(metadata=None, prefix=""):
    """Return a function that writes another program's .safetensors with the weights of a BinaryNN."""

    def write(path):
        named = {prefix + key: tensor for key, tensor in state().items()}
        path.write_bytes(safetensors.torch.save(named, metadata))

    return write


def tensors_cut(path):
    tensors()(path)
    path.write_bytes(path.read_bytes()[:20_000])


def folder(path):
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"")


def broken_link(path):
    path.symlink_to(path.parent / "moved away")


def link_to_itself(path):
    path.symlink_to(path)


def pipe(path):
    os.mkfifo(path)


def png():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "png")
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PYTORCH = "PyTorch"

# What it is, how it is written, what a message about it says.
FILES = [
    ("weights by torch.save", torch_zip, PYTORCH),
    ("weights by torch.save of old versions", torch_legacy, PYTORCH),
    ("weights and optimizer", torch_with_optimizer, PYTORCH),
    ("weights of DataParallel", torch_data_parallel, PYTORCH),
    ("a whole net", torch_whole_net, PYTORCH),
    ("TorchScript", torch_script, PYTORCH),
    ("half a .pth", torch_half, "incomplete.*PyTorch"),
    *[(f"pickle, protocol {protocol}", pickled(protocol), PYTORCH) for protocol in (2, 3, 4, 5)],
    ("pointer of Git LFS", content(LFS), "git lfs pull"),
    ("zip archive", zipped("a.txt"), "zip"),
    ("Keras file", zipped("model.weights.h5"), "Keras"),
    ("HDF5 file", content(b"\x89HDF\r\n\x1a\n" + bytes(100)), "HDF5"),
    ("GGUF file", content(b"GGUF" + bytes(100)), "GGUF"),
    ("gzip archive", packed(gzip.compress), "gzip"),
    ("bzip2 archive", packed(bz2.compress), "bzip2"),
    ("tar archive", tarred, "tar"),
    ("array", array(np.zeros(3)), "NumPy|columns"),
    ("array of objects", array(np.array([{"a": 1}])), "objects|Object|NumPy"),
    ("archive of arrays", arrays, "NumPy"),
    ("PNG", picture("png"), "PNG"),
    ("JPEG", picture("jpeg"), "JPEG"),
    ("PDF", content(b"%PDF-1.7\n"), "PDF"),
    ("web page", content(b"\n<!DOCTYPE html><html>404</html>"), "web page"),
    ("XML", content(b"<?xml version='1.0'?><net/>"), "XML"),
    ("JSON list", content(b"[1, 2]"), "JSON|name a net"),
    ("index of a sharded model", content(json.dumps({"weight_map": {}}).encode()), "JSON|name a net"),
    ("weights of Hugging Face", tensors({"format": "pt"}), "safetensors"),
    ("weights without a header", tensors(), "safetensors"),
    ("weights with a config of their own", tensors({"config": "{}", "format": "pt"}), "safetensors"),
    ("half of another program's weights", tensors_cut, "safetensors"),
    ("text", content(b"to do: train the net\n"), "another program"),
    ("zeros", content(bytes(5000)), "another program"),
    ("random bytes", content(bytes(range(7, 256)) * 9), "another program"),
    ("one byte", content(b"\x80"), "another program"),
    ("nothing", content(b""), "empty"),
    ("a folder", folder, "folder"),
    ("a link to nothing", broken_link, "missing"),
    ("a link to itself", link_to_itself, "cannot be read"),
    *([("a pipe", pipe, "pipe")] if hasattr(os, "mkfifo") else []),  # Windows has no pipes among its files
]
odd_files = pytest.mark.parametrize(("write", "named"), [row[1:] for row in FILES], ids=[row[0] for row in FILES])


def as_it_is(path):
    """Return what is at `path`, to compare it with what is there later."""
    return path.read_bytes() if path.is_file() else os.lstat(path).st_mode


@contextlib.contextmanager
def shared_folder(mode=0o755):
    """Make a folder that other users can enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, mode)
        yield Path(name)


@contextlib.contextmanager
def as_nobody():
    """Work as another user; skip the test if this process may not."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can work as another user")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
