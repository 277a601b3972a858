"""Explain, image by image, why a C program of a net with binary activations predicts another class than PyTorch.

Run `python -m tools.trace_c XnorNN --arch sharpnet`. The C program adds numbers in a different order than PyTorch, so
its sums differ by rounding errors. If a sum is that close to the threshold of a sign, the sign may differ, and so may
all later values. The table names the first such sum of each image.
"""

import re
import subprocess
import tempfile
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from torch import nn

from qathelpers.data import load
from qathelpers.data.batches import normalize
from qathelpers.deploy import c
from qathelpers.results import recorded_net
from qathelpers.training import predict

OPTIONS = ("-std=c99", "-O3", "-march=native")
ACTIVATE = re.compile(r"^    activate\((\d+), (\d+)\);", re.MULTILINE)
STEM = "activate_row(pixel, 1, channels,"
# What the program writes, besides its scores: every number whose sign becomes an activation.
WRITE = "#include <stdio.h>\nstatic void write_floats(const float *from, int count)\n{{\n    {write}\n}}\n"
TO_FILE = 'static FILE *file;\n    if (!file)\n        file = fopen("floats", "wb");\n'
TO_FILE += "    fwrite(from, sizeof *from, (size_t)count, file);\n    fflush(file);"


def sums_in_c(net: nn.Module, images: torch.Tensor) -> list[np.ndarray]:
    """Return the numbers whose signs the C program of `net` computes: per activation, floats (n, pixels, channels)."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        source = c.export_c(net, folder / "net.c").read_text(encoding="utf-8")
        shapes = [(int(pixels), int(channels)) for pixels, channels in ACTIVATE.findall(source)]
        source = ACTIVATE.sub(r"    write_floats(features, \1 * \2);\n\g<0>", source)
        source = source.replace(STEM, f"write_floats(pixel, channels);\n            {STEM}")
        (folder / "net.c").write_text(WRITE.format(write=TO_FILE) + source, encoding="utf-8")
        command = [c.compiler(), *OPTIONS, "-DNET_MAIN", "net.c", "-o", "net"]
        subprocess.run(command, cwd=folder, check=True)
        program, pixels = str(folder / "net"), images.contiguous().numpy().tobytes()
        subprocess.run([program], cwd=folder, input=pixels, check=True, capture_output=True)
        numbers = np.fromfile(folder / "floats", np.float32).reshape(len(images), -1)
    first = numbers.shape[1] - sum(pixels * channels for pixels, channels in shapes)
    channels = net.stem[0].channels
    ends = np.cumsum([first, *(pixels * channels for pixels, channels in shapes)])
    parts = np.split(numbers, ends[:-1], axis=1)
    return [
        part.reshape(len(images), *shape)
        for part, shape in zip(parts, [(first // channels, channels), *shapes], strict=True)
    ]


def activations(net: nn.Module) -> dict[str, nn.Module]:
    """Return the activations of a ConvNet by the name of the layer that follows them."""
    found = {}
    for i, block in enumerate(net.blocks):
        found |= {f"blocks.{i}.widen": block.widen[0], f"blocks.{i}.refine": block.refine[0]}
    return {**found, "head": net.head[2]}


@torch.no_grad()
def sums_in_pytorch(net: nn.Module, images: torch.Tensor) -> list[np.ndarray]:
    """Return the same as `sums_in_c` for the net in PyTorch."""
    inputs = []

    def note(_, args: tuple[torch.Tensor]) -> None:
        x = args[0]
        inputs.append((x.flatten(2) if x.ndim == 4 else x[:, :, None]).transpose(1, 2).double().numpy())

    handles = [act.register_forward_pre_hook(note) for act in activations(net).values()]
    try:
        net(normalize(images))
    finally:
        for handle in handles:
            handle.remove()
    return inputs


def explain(net: nn.Module, images: torch.Tensor) -> pd.DataFrame:
    """Return one row per image: the first sum whose sign differs between the C program and PyTorch.

    Args:
        net: A ConvNet with binary activations.
        images: Images (n, channels, h, w) whose predictions differ.

    Returns:
        The layer that reads the sign, the number of signs that differ in front of this layer, channel and pixel of the
        sum closest to the threshold 0, this sum in PyTorch and in C, and the standard deviation of its channel.
    """
    in_c, in_torch, rows = sums_in_c(net, images), sums_in_pytorch(net, images), []
    for i in range(len(images)):
        row = {"layer": "none"}
        for name, ours, theirs in zip(activations(net), in_c, in_torch, strict=True):
            differ = (ours[i] >= 0) != (theirs[i] >= 0)
            if differ.any():
                where = np.unravel_index(np.where(differ, np.abs(theirs[i]), np.inf).argmin(), differ.shape)
                row = {"layer": name, "signs": int(differ.sum()), "pixel": int(where[0]), "channel": int(where[1])}
                row |= {"PyTorch": float(theirs[i][where]), "C": float(ours[i][where])}
                row["spread"] = float(theirs[i][:, where[1]].std())
                break
        rows.append(row)
    return pd.DataFrame(rows)


@click.command()
@click.argument("name", default="XnorNN")
@click.option("--arch", default="sharpnet", show_default=True)
@click.option("--images", "count", type=int, default=10_000, show_default=True, help="How many test images to compare.")
def main(name: str, arch: str, count: int) -> None:
    """Print the test images whose prediction in C differs from PyTorch's, and the sum that explains each."""
    dataset, net = load("cifar10"), recorded_net(name, arch)
    images = dataset.test_images[:count]
    with tempfile.TemporaryDirectory() as folder:
        found = c.run_c(c.export_c(net, Path(folder) / "net.c"), images, options=OPTIONS)
    expected = predict(net, images)
    accuracy = (found.argmax(1) == dataset.test_labels[:count]).float().mean()
    different = (found.argmax(1) != expected.argmax(1)).nonzero().flatten()
    print(f"{name} ({arch}): accuracy in C {accuracy:.4f}, {len(different)} of {len(images)} predictions differ")
    if len(different) and name == "XnorNN":
        table = explain(net, images[different])
        table.insert(0, "image", different.tolist())
        table["answers"] = [
            f"{a} {b}" for a, b in zip(expected[different].argmax(1), found[different].argmax(1), strict=True)
        ]
        print(table.to_string(index=False))


if __name__ == "__main__":
    main()
