"""Time the ways to run a net on this CPU, side by side in one process."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from . import hardware, nets, packing
from .bench import alternate, medians
from .deploy import onnx, openvino
from .errors import CourseError

REPEATS = 15
SECONDS_A_TURN = 0.05  # of one way, so that a turn is long beside the clock's grain
FLOAT_BYTES = 4

Run = Callable[[torch.Tensor], torch.Tensor]


def inference(batch: int = 1, threads: int = 1, arch: str = "convnet", repeats: int = REPEATS) -> pd.DataFrame:
    """Return a row a way to run `arch`: milliseconds an image (median), how many times as fast as PyTorch's float net.

    PyTorch runs the float net and the simulated W1A1 net, ONNX Runtime the float and the 8-bit net, OpenVINO the float
    and the W1A1 net. Weights are random, which changes no time. `kB` are those of the weights on disk. Raises
    CourseError when the extra packages are not installed.
    """
    if onnx.missing() or not openvino.available():
        raise CourseError("This needs the packages of `pip install -e '.[deploy]'` in the course.")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            ways = _ways(arch, batch, threads, Path(folder))
            seconds = _time(ways, torch.randn(batch, 3, 32, 32), repeats)
    finally:
        torch.set_num_threads(before)
    rows = [
        {
            "way": way,
            "ms an image": 1000 * seconds[way] / batch,
            "times as fast": seconds["PyTorch fp32"] / seconds[way],
            "kB": size,
            "batch": batch,
            "threads": threads,
        }
        for way, (_, size) in ways.items()
    ]
    return pd.DataFrame(rows).round({"ms an image": 3, "times as fast": 2, "kB": 0}).set_index("way")


def _ways(arch: str, batch: int, threads: int, folder: Path) -> dict[str, tuple[Run, float]]:
    floats, int8, xnor = (nets.build(name, arch).eval() for name in ("PytorchNN", "Int8NN", "XnorNN"))
    size = sum(p.numel() for p in floats.parameters()) * FLOAT_BYTES / 1000
    ways = {
        "PyTorch fp32": (floats, size),
        "PyTorch W1A1, simulated": (xnor, size),
        "ONNX Runtime fp32": (_runtime(floats, folder / "float.onnx", batch, threads), size),
        "ONNX Runtime int8": (_runtime(int8, folder / "int8.onnx", batch, threads), packing.kilobytes(int8)),
        "OpenVINO fp32": (openvino.compiled(floats, batch, threads), size),
        "OpenVINO W1A1": (openvino.compiled(xnor, batch, threads), packing.kilobytes(xnor)),
    }
    if hardware.bf16_is_fast(torch.device("cpu")):
        ways["PyTorch bf16"] = (_in_bf16(floats), size / 2)
    return ways


def _runtime(net: nn.Module, path: Path, batch: int, threads: int) -> Run:
    return onnx.session(onnx.export(net, path, images=batch), exact=False, threads=threads)


def _in_bf16(net: nn.Module) -> Run:
    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return net(images)

    return run


def _time(ways: dict[str, tuple[Run, float]], images: torch.Tensor, repeats: int) -> dict[str, float]:
    """Return the median seconds of one call of each way."""

    def calls(run: Run, count: int) -> Iterator[torch.Tensor]:
        return (run(images) for _ in range(count))

    counts = {}
    for way, (run, _) in ways.items():
        first = medians(alternate({way: lambda run=run: calls(run, 3)}, 3))[way] / 3
        counts[way] = max(1, round(SECONDS_A_TURN / first))
    turns = {way: lambda run=run, way=way: calls(run, counts[way]) for way, (run, _) in ways.items()}
    return {way: seconds / counts[way] for way, seconds in medians(alternate(turns, repeats)).items()}


def everything(arch: str = "convnet") -> pd.DataFrame:
    """Print and return the tables for batches of 1 and 64, on one thread and on all."""
    every = torch.get_num_threads()
    tables = [inference(batch, threads, arch) for threads in sorted({1, every}) for batch in (1, 64)]
    print(f"{hardware.describe(torch.device('cpu'))}; {arch}, median of {REPEATS} turns")
    for table in tables:
        print(f"\nbatch {table['batch'].iloc[0]}, {table['threads'].iloc[0]} threads")
        print(table.drop(columns=["batch", "threads"]).to_string())
    return pd.concat(tables)
