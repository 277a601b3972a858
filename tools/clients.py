"""Count how many predictions of exported nets in programs outside the course are the same as PyTorch's.

`python -m tools.clients` makes the tables of docs/results/deployment.md. Programs that the course does not install are
looked for in other environments: `--python finn=/path/to/venv/bin/python`. A program that is not installed is left out.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import nn

from qathelpers.common.errors import CourseError
from qathelpers.common.hardware import describe
from qathelpers.data import load, normalize
from qathelpers.data.dataset import Dataset
from qathelpers.deploy import c, conversion, export
from qathelpers.nets import SCHEMES, build
from qathelpers.results import recorded_net
from qathelpers.training import fit, predict

from . import client_programs, commands

LIMIT = 900  # seconds for a program and a net
BRIEFLY = 2000  # images on which nets that are not recorded are trained, for one epoch


@dataclass(frozen=True)
class Client:
    """A program that runs exported files.

    Args:
        program: A key of `client_programs.PROGRAMS`, or "c".
        format: A key of `export.FORMATS`, or "pt2" for what torch.export saves.
        images: The largest number of images to run. Slow programs get fewer.
        options: Options of the export.
    """

    program: str
    format: str
    images: int = 10_000
    options: tuple[tuple[str, bool | int], ...] = ()


FLOATS = (("floats", True),)
CLIENTS = {
    "ONNX Runtime, basic optimizations": Client("onnxruntime_basic", "qcdq"),
    "ONNX Runtime, default": Client("onnxruntime", "qcdq"),
    "ONNX Runtime, int8 file": Client("onnxruntime", "int8"),
    "onnxruntime-web": Client("onnxruntime_web", "qcdq", 200),
    "IREE": Client("iree", "qcdq", 100, (("batch", 1),)),  # it does not support bytes with any number of images
    "TVM": Client("tvm", "qcdq", 100),
    "OpenVINO": Client("openvino", "openvino"),
    "OpenVINO, fast file": Client("openvino", "openvino", options=(("fast", True),)),
    "qonnx": Client("qonnx", "qonnx", 5),
    "qonnx, channels-last": Client("qonnx_channels_last", "qonnx", 5, FLOATS),
    "FINN": Client("finn", "qonnx", 5, FLOATS),
    "hls4ml": Client("hls4ml", "qonnx", 200, FLOATS),
    "torch.export": Client("torch_export", "pt2", 200),
    "ExecuTorch": Client("executorch", "pt2", 200),
    "C": Client("c", "c"),
}


def net_of(name: str, arch: str, dataset: Dataset) -> nn.Module:
    """Return the recorded net or, if there is none, a net that is trained on a few images."""
    try:
        return recorded_net(name, arch)
    except CourseError:
        net = build(name, arch)
        few = Dataset(
            dataset.train_images[:BRIEFLY],
            dataset.train_labels[:BRIEFLY],
            dataset.test_images[:100],
            dataset.test_labels[:100],
            dataset.classes,
            dataset.name,
        )
        fit(net, few, 1, log=lambda line: None)
        return net.cpu().eval()


def answer(client: Client, net: nn.Module, images: torch.Tensor, dataset: Dataset, pythons: dict[str, str]) -> dict:
    """Return what a program answers: `classes` and a `note`, or why there are none (`missing`, `refused`)."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        try:
            path = _written(client, net, folder, dataset)
        except CourseError as error:
            return {"refused": f"by the export: {error}"}
        if client.program == "c":
            return {"classes": c.run_c(path, images).argmax(1).tolist(), "note": ""}
        takes_floats = client.format == "pt2" or dict(client.options).get("floats")
        np.save(folder / "images.npy", (normalize(images).contiguous() if takes_floats else images).numpy())
        python = pythons.get(client.program, sys.executable)
        program = str(Path(client_programs.__file__).resolve())
        command = [python, program, client.program, str(path), str(folder / "images.npy"), str(folder / "answers.json")]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return {"refused": f"not finished after {LIMIT} s"}
        if not (folder / "answers.json").exists():
            return {"refused": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:200]}
        return json.loads((folder / "answers.json").read_text(encoding="utf-8"))


def _written(client: Client, net: nn.Module, folder: Path, dataset: Dataset) -> Path:
    if client.format == "pt2":
        path = folder / "net.pt2"
        images = torch.randn(1, *net.spec.image)
        torch.export.save(torch.export.export(conversion.portable(net), (images,), strict=False), path)
        return path
    path = folder / f"net{export.FORMATS[client.format].suffix}"
    return export.export(net, client.format, path, images=lambda: dataset.train_images, **dict(client.options))[0]


def summary(found: dict, expected: list[int]) -> str:
    """Return the entry of the table for an answer, such as "200 of 200"."""
    if "missing" in found:
        return "not installed"
    if "refused" in found:
        return "refused"
    same = sum(map(int.__eq__, found["classes"], expected))
    return f"{same} of {len(found['classes'])}"


@click.command(cls=commands.Command)
@click.option("--arch", "archs", multiple=True, default=("lenet", "convnet", "sharpnet"), show_default=True)
@click.option("--name", "names", multiple=True, default=tuple(SCHEMES), help="Default: all schemes of the course.")
@click.option("--client", "clients", multiple=True, type=click.Choice(list(CLIENTS)), default=tuple(CLIENTS))
@click.option("--images", "count", type=click.IntRange(1, 10_000), default=1000, show_default=True)
@click.option("--python", "pythons", multiple=True, metavar="PROGRAM=PATH", help="The Python that has PROGRAM.")
def main(
    archs: tuple[str, ...], names: tuple[str, ...], clients: tuple[str, ...], count: int, pythons: tuple[str, ...]
) -> None:
    """Export nets, run them in other programs, and print how many predictions are the same as PyTorch's."""
    dataset, places = load("cifar10"), dict(place.split("=", 1) for place in pythons)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print("on", describe(torch.device("cpu")), flush=True)
    for arch in archs:
        for name in names:
            net = net_of(name, arch, dataset)
            for title in clients:
                client = CLIENTS[title]
                images = dataset.test_images[: min(count, client.images)]
                expected = predict(net, images).argmax(1).tolist()
                found = answer(client, net, images, dataset, places)
                reason = found.get("note") or found.get("refused") or found.get("missing") or ""
                print(f"{arch} | {name} | {title} | {summary(found, expected)} | {reason}", flush=True)


if __name__ == "__main__":
    main()
