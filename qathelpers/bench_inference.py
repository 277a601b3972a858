"""Time the ways to run a net on this CPU, side by side in one process."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from . import costs, hardware, nets, packing, results
from .batches import normalize
from .bench import alternate, medians
from .data import Data
from .deploy import onnx, openvino
from .errors import CourseError

REPEATS = 15
SECONDS_A_TURN = 0.05  # of one way, so that a turn is long beside the clock's grain
TEST_BATCH = 100

Run = Callable[[torch.Tensor], torch.Tensor]


def inference(batch: int = 1, threads: int = 1, arch: str = "convnet", repeats: int = REPEATS) -> pd.DataFrame:
    """Return a row a way to run `arch`: milliseconds an image (median), how many times as fast as PyTorch's float net.

    PyTorch runs the float net and the simulated W1A1 net, ONNX Runtime the float and the 8-bit net, OpenVINO both and
    the W1A1 net. `kB` are those of the file that holds the weights. Raises CourseError when the extra packages are not
    installed.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            ways = _ways(arch, batch, threads, Path(folder))
            seconds = _time({way: run for way, (run, _) in ways.items()}, torch.randn(batch, 3, 32, 32), repeats)
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


@torch.no_grad()
def accuracies(loaded: Data, arch: str = "convnet") -> pd.Series:
    """Return each way's accuracy (0 to 1) on the test images, of the nets that are recorded, one number a way."""
    images, labels = loaded.test_images, loaded.test_labels
    count = len(labels) // TEST_BATCH * TEST_BATCH  # an exported net takes so many images, no fewer
    right = {}
    with tempfile.TemporaryDirectory() as folder:
        ways = _ways(arch, TEST_BATCH, torch.get_num_threads(), Path(folder))
        for part, expected in zip(images[:count].split(TEST_BATCH), labels[:count].split(TEST_BATCH), strict=True):
            normalized = normalize(part)
            for way, (run, _) in ways.items():
                right[way] = right.get(way, 0) + (run(normalized).argmax(1) == expected).sum().item()
    return pd.Series(right, name="accuracy") / count


def binary_peak(threads: int = 1, channels: int = 256, side: int = 32) -> float:
    """Return the operations a second of a large binary convolution by itself; an XNOR and its count are two."""
    layer = nets.SCHEMES["XnorNN"].conv(channels, channels, 3, padding=1)
    alone = nn.Sequential(nets.SCHEMES["XnorNN"].act(), layer)
    run = openvino.compiled(alone, threads=threads, shape=(channels, side, side))
    seconds = _time({"peak": run}, torch.randn(1, channels, side, side), REPEATS)["peak"]
    return 2 * layer.weight.numel() * side**2 / seconds


def everything(loaded: Data, arch: str = "convnet") -> pd.DataFrame:
    """Print and return the tables for batches of 1 and 64, on one thread and on all, and the accuracies."""
    every = torch.get_num_threads()
    print(f"{hardware.describe(torch.device('cpu'))}; {arch}, median of {REPEATS} turns; accuracies: {loaded}")
    tables = [inference(batch, threads, arch) for threads in sorted({1, every}) for batch in (1, 64)]
    for table in tables:
        print(f"\nbatch {table['batch'].iloc[0]}, {table['threads'].iloc[0]} threads")
        print(table.drop(columns=["batch", "threads"]).to_string())
    macs = costs.layers(nets.build("XnorNN", arch)).query("W == 1 and A == 1")["MACs"].sum()
    rate, peak = 2e3 * macs / tables[0].loc["OpenVINO W1A1", "ms an image"], binary_peak()
    print(f"\nW1A1, one image, one thread: {rate / 1e9:.0f} billion binary operations a second, {rate / peak:.0%} of")
    print(f"the {peak / 1e9:.0f} billion that a large binary convolution reaches by itself.\n")
    print(accuracies(loaded, arch).round(4).to_string())
    return pd.concat(tables)


def sizes(names: list[str], arch: str = "convnet") -> pd.DataFrame:
    """Return a row a net of `names`, recorded or new: kilobytes in every format, NaN where one cannot hold it."""
    return pd.DataFrame([_sizes(_net(name, arch)) for name in names], index=names).rename_axis("net").round(0)


def _sizes(net: nn.Module) -> dict[str, float]:
    size = dict(packing.size_report(net).loc["all"] / 1000)
    with tempfile.TemporaryDirectory() as folder:
        for format in onnx.FORMATS:
            with suppress(CourseError):
                size[f"ONNX {format}"] = onnx.export(net, Path(folder) / "net.onnx", format).stat().st_size / 1000
        with suppress(CourseError):
            size["OpenVINO"] = sum(path.stat().st_size for path in openvino.save(net, Path(folder) / "net.xml")) / 1000
    return size


def _net(name: str, arch: str) -> nn.Module:
    """Return the recorded net, or, where none is, a new one, which is as large and as fast."""
    try:
        return results.recorded_net(name, arch)
    except CourseError:
        return nets.build(name, arch).eval()


def _ways(arch: str, batch: int, threads: int, folder: Path) -> dict[str, tuple[Run, float]]:
    """Return what runs each way, and the kilobytes of its weights' file."""
    if onnx.missing() or not openvino.available():
        raise CourseError("This needs the packages of `pip install -e '.[deploy]'` in the course.")
    floats, int8, xnor = (_net(name, arch) for name in ("PytorchNN", "Int8NN", "XnorNN"))
    files = {
        kind: onnx.export(net, folder / f"{kind}.onnx", images=batch)
        for kind, net in (("float", floats), ("int8", int8))
    }
    size = {kind: path.stat().st_size / 1000 for kind, path in files.items()}
    size |= {net.name: packing.kilobytes(net) for net in (floats, int8, xnor)}
    ways = {
        "PyTorch fp32": (floats, size["PytorchNN"]),
        "PyTorch W1A1, simulated": (xnor, size["PytorchNN"]),
        "ONNX Runtime fp32": (onnx.session(files["float"], exact=False, threads=threads), size["float"]),
        "ONNX Runtime int8": (onnx.session(files["int8"], exact=False, threads=threads), size["int8"]),
        "OpenVINO fp32": (openvino.compiled(floats, batch, threads), size["PytorchNN"]),
        "OpenVINO int8": (openvino.compiled(int8, batch, threads), size["Int8NN"]),
        "OpenVINO W1A1": (openvino.compiled(xnor, batch, threads), size["XnorNN"]),
    }
    if hardware.bf16_is_fast(torch.device("cpu")):
        ways["PyTorch bf16"] = (_in_bf16(floats), size["PytorchNN"] / 2)
    return ways


def _in_bf16(net: nn.Module) -> Run:
    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return net(images)

    return run


def _time(ways: dict[str, Run], images: torch.Tensor, repeats: int) -> dict[str, float]:
    """Return the median seconds of one call of each way."""

    def calls(run: Run, count: int) -> Iterator[torch.Tensor]:
        return (run(images) for _ in range(count))

    counts = {}
    for way, run in ways.items():
        first = medians(alternate({way: lambda run=run: calls(run, 3)}, 3))[way] / 3
        counts[way] = max(1, round(SECONDS_A_TURN / first))
    turns = {way: lambda run=run, way=way: calls(run, counts[way]) for way, run in ways.items()}
    return {way: seconds / counts[way] for way, seconds in medians(alternate(turns, repeats)).items()}
