"""Compare the inference speed, memory, accuracy and size of nets on this CPU, in four runtimes."""

import copy
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from ..analysis import costs
from ..common import hardware
from ..common.errors import CourseError
from ..common.files import NotWritten, Unreadable
from ..common.timing import alternate, medians
from ..data import shapes
from ..data.batches import normalize
from ..data.dataset import Dataset
from ..nets import packing
from ..nets.architectures import build
from ..nets.schemes import SCHEMES
from ..results.recorded import recorded_net
from . import c, int8_export, onnx_export, openvino_export

REPEATS = 15
SECONDS_PER_TURN = 0.05  # each turn has as many calls as fit; far longer than the resolution of the clock
TEST_BATCH = 100
CALIBRATION = 256  # images
NO_LOSS = 0.01  # a loss of accuracy that `verdict` accepts
PEAK_MEMORY = Path(__file__).with_name("peak_memory.py")
PACKAGE = Path(__file__).parents[1]
RUNTIME = r"(.*?) (?:fp32|int8|W1A1|bf16)"  # in the name of a backend
# Words are compared and counted as in the C program of a W1A1 net, but they stay in registers or the nearest cache.
PEAK = """
uint32_t words[3][64];

void net_scores(const uint8_t *passes, float *scores)
{
    uint32_t differ[64] = {0}, sum = 0;
    for (uint32_t i = 0; i < 100000u * *passes; i++)
        for (int o = 0; o < 64; o++)
            differ[o] += COUNT;
    for (int o = 0; o < 64; o++)
        sum += differ[o];
    *scores = (float)sum;
}
"""
# Counting one or three words at a time: which is faster depends on the processor.
PEAK_COUNTS = {1: "popcount(i ^ words[0][o], 0, 0)", 3: "popcount(i ^ words[0][o], ~i ^ words[1][o], ~i ^ words[2][o])"}
PEAK_WORDS = 100_000 * 64  # per pass
NO_COMPILER = "No C compiler is installed (cc, gcc or clang), so the C program is left out."

Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Backend:
    """One way to compute a net.

    Args:
        run: The function from uint8 images (batch, 3, 32, 32) to logits.
        net: The name of the net.
        packed: The size of its packed weights in kB.
        loaded: The size in kB of what the backend loads.
        source: The file that it loads; for PyTorch, the name of the net and the architecture.
    """

    run: Forward
    net: str
    packed: float
    loaded: float
    source: str


def inference(batch: int = 1, threads: int = 1, arch: str = "convnet", repeats: int = REPEATS) -> pd.DataFrame:
    """Time the inference of the nets of one architecture in each backend.

    PyTorch runs the float net and the simulated W1A1 net. ONNX Runtime runs the float net, the same net quantized to 8
    bits by ONNX Runtime itself (`int8_export`), and the trained 8-bit net as a QCDQ file. OpenVINO runs the float net,
    the 8-bit net and the W1A1 net. Where the processor is fast at bf16, PyTorch and OpenVINO also run the float net in
    bf16, which is OpenVINO's default there. If a C compiler is installed, the C program of the W1A1 net (`export_c`)
    runs, too, in one thread; a warning says if it cannot be compiled or loaded. The backends take turns in one process.
    All of them get images as bytes, so every time includes the normalization.

    Args:
        batch: The number of images per call.
        threads: The number of CPU threads.
        arch: The architecture.
        repeats: The number of turns per backend.

    Returns:
        One row per backend, with the columns `ms per image` (median), `speedup` (compared with PyTorch's float net),
        `times its fp32` (compared with the float net in the same runtime; NaN for C, which has none), `net`, `kB` (size
        of the packed weights), `file kB` (size of what the backend loads), `batch` and `threads`.

    Raises:
        CourseError: If the extra packages are not installed.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad(), _folder() as folder:
            drawn, _ = shapes.make(CALIBRATION, 1)[:2]  # times do not depend on the images
            backends = _backends(arch, batch, threads, Path(folder), drawn)
            seconds = _time({name: backend.run for name, backend in backends.items()}, drawn[:batch], repeats)
    finally:
        torch.set_num_threads(threads_before)
    table = pd.DataFrame(
        {
            "ms per image": 1000 * seconds[name] / batch,
            "speedup": seconds["PyTorch fp32"] / seconds[name],
            "times its fp32": float("nan"),
            "net": backend.net,
            "kB": backend.packed,
            "file kB": backend.loaded,
            "batch": batch,
            "threads": 1 if name.startswith("C ") else threads,
        }
        for name, backend in backends.items()
    )
    table.index = pd.Index(backends, name="backend")
    own = [f"{runtime} fp32" for runtime in table.index.str.extract(RUNTIME)[0]]
    table["times its fp32"] = table["ms per image"].reindex(own).to_numpy() / table["ms per image"]
    digits = {"ms per image": 4, "speedup": 2, "times its fp32": 2, "kB": 0, "file kB": 0}
    return table.round(digits)


@torch.no_grad()
def accuracies(dataset: Dataset, arch: str = "convnet") -> pd.Series:
    """Return the test accuracy (0 to 1) of the recorded nets in each backend; NaN where no net is recorded.

    Exported nets have a fixed batch size of 100, so the last `len(test_images) % 100` test images are not used.

    Raises:
        CourseError: If there are fewer than 100 test images, or if the extra packages are not installed.
    """
    images, labels = dataset.test_images, dataset.test_labels
    count = len(labels) // TEST_BATCH * TEST_BATCH
    if not count:
        raise CourseError(
            f"Accuracies need at least {TEST_BATCH} test images, but there are {len(labels)}: pass more, or unset "
            "QAT_MAX_IMAGES."
        )
    correct = {}
    with _folder() as folder:
        calibration = dataset.train_images[:CALIBRATION]
        backends = _backends(arch, TEST_BATCH, torch.get_num_threads(), Path(folder), calibration)
        recorded = {net for net in {backend.net for backend in backends.values()} if _recorded(net, arch) is not None}
        known = {name: backend for name, backend in backends.items() if backend.net in recorded}
        for part, expected in zip(images[:count].split(TEST_BATCH), labels[:count].split(TEST_BATCH), strict=True):
            for name, backend in known.items():
                correct[name] = correct.get(name, 0) + (backend.run(part).argmax(1) == expected).sum().item()
    return pd.Series(correct, index=list(backends), name="accuracy", dtype=float) / count


def memory(batch: int = 1, arch: str = "convnet") -> pd.Series:
    """Return how many MB of memory each backend needs to load its net and to run it, in one thread.

    Each backend runs in a process of its own. The result is the peak memory of this process, minus the memory that it
    used after importing the backend. The values are NaN if the operating system is not Linux, or does not report it.

    Args:
        batch: The number of images per call.
        arch: The architecture.

    Raises:
        CourseError: If the extra packages are not installed, or if one of the processes fails.
    """
    with torch.no_grad(), _folder() as folder:
        drawn, _ = shapes.make(CALIBRATION, 1)[:2]
        backends = _backends(arch, batch, 1, Path(folder), drawn)
        rises = {name: _rise(name, backend, batch) for name, backend in backends.items()}
    return pd.Series(rises, name="MB").round(1)


def _rise(name: str, backend: Backend, batch: int) -> float:
    if sys.platform != "linux":
        return float("nan")
    runtime = pd.Series([name]).str.extract(RUNTIME)[0][0]
    command = [sys.executable, "-c", PEAK_MEMORY.read_text(encoding="utf-8"), runtime, backend.source]
    paths = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    precision = "bf16" if "bf16" in name else "f32"
    done = subprocess.run(  # noqa: S603, the program is ours
        [*command, precision, str(batch)], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise CourseError(f"The memory of {name} cannot be measured: {done.stderr.strip()[-500:]}")
    return float(done.stdout.split()[-1])


def verdict(table: pd.DataFrame) -> str:
    """Say which backend of a table of `inference`, with the column `accuracy`, is the fastest, and what it costs."""
    table = table.sort_values("ms per image")
    first, batch, threads = table.index[0], table["batch"].iloc[0], table["threads"].max()
    accuracy = table["accuracy"]
    where = f"Batch size {batch}, {threads} thread{'s' if threads > 1 else ''}"
    text = f"{where}: {first} is the fastest, at {table['speedup'].iloc[0]:.1f} times the speed of PyTorch fp32"
    limit = accuracy.get("PyTorch fp32", float("nan")) - NO_LOSS
    if not pd.notna(limit):
        return f"{text}. The accuracy of the float net is not known."
    as_good = accuracy.index[accuracy >= limit]
    if first in as_good:
        return f"{text}, and its accuracy is at most {NO_LOSS:.2f} below that of the float net."
    text += f", but its accuracy is {accuracy[first]:.3f} instead of {accuracy['PyTorch fp32']:.3f}. Of the backends "
    text += (
        f"that lose at most {NO_LOSS:.2f}, {as_good[0]} is the fastest, at {table['speedup'][as_good[0]]:.1f} times."
    )
    return text


def binary_peak(threads: int = 1, channels: int = 256, side: int = 32) -> float:
    """Return the number of binary operations per second in one large binary convolution in OpenVINO.

    Each multiplication counts as two operations, an XNOR and the addition of its result.

    Args:
        threads: The number of CPU threads.
        channels: The number of input and output channels.
        side: Height and width of the input in pixels.
    """
    layer = SCHEMES["XnorNN"].conv(channels, channels, 3, padding=1)
    net = nn.Sequential(SCHEMES["XnorNN"].act(), layer)
    forward = openvino_export.compiled(net, threads=threads, shape=(channels, side, side))
    seconds = _time({"peak": forward}, torch.randn(1, channels, side, side), REPEATS)["peak"]
    return 2 * layer.weight.numel() * side**2 / seconds


def c_peak() -> float:
    """Return how many binary operations per second a C program reaches if it does nothing else.

    They are counted as in `binary_peak`. The program uses one thread.

    Raises:
        CourseError: If no C compiler is installed.
    """
    rates = []
    for words, count in PEAK_COUNTS.items():
        with _folder() as folder:
            source = Path(folder) / "peak.c"
            text = f"#include <stdint.h>\n{c.popcount_source()}{PEAK.replace('COUNT', count)}"
            source.write_text(text, encoding="utf-8")
            run = c.load_library(c.build_library(source, Path(folder) / "peak.so"), classes=1, shape=(1, 1, 1))
            seconds = _time({"peak": run}, torch.ones(1, 1, 1, 1, dtype=torch.uint8), REPEATS)["peak"]
        rates.append(2 * 32 * words * PEAK_WORDS / seconds)
    return max(rates)


def everything(dataset: Dataset, arch: str = "convnet") -> pd.DataFrame:
    """Print the tables of `inference` for batch sizes 1 and 64, on one thread and on all, with accuracy and memory.

    Below the tables, print how close the W1A1 net comes to the peak rate of binary operations, which is measured with
    one large binary convolution in OpenVINO (`binary_peak`), and with a loop in C (`c_peak`).

    Returns:
        The rows of all tables.
    """
    all_threads = torch.get_num_threads()
    print(f"{hardware.describe(torch.device('cpu'))}; {arch}, median of {REPEATS} turns; accuracies on: {dataset}")
    if c.compiler() is None:
        print(NO_COMPILER)
    accuracy, tables = accuracies(dataset, arch), []
    for batch in (1, 64):
        megabytes = memory(batch, arch)
        tables += [
            inference(batch, threads, arch).join(accuracy.round(4)).join(megabytes)
            for threads in sorted({1, all_threads})
        ]
    for table in tables:
        print(f"\nbatch size {table['batch'].iloc[0]}, number of threads {table['threads'].max()}")
        print(table.drop(columns=["batch", "threads", "net"]).to_string(na_rep="-"))
        print(verdict(table))
    macs = costs.layers(build("XnorNN", arch)).query("W == 1 and A == 1")["MACs"].sum()
    print("\nBillions of binary operations per second, batch size 1, one thread:")
    for name, reference in {"OpenVINO W1A1": binary_peak, "C W1A1": c_peak}.items():
        if name in tables[0].index:
            rate, peak = 2e3 * macs / tables[0].loc[name, "ms per image"], reference()
            print(f"{name}: {rate / 1e9:.0f}, {rate / peak:.0%} of the peak of {peak / 1e9:.0f}")
    return pd.concat(tables)


def sizes(names: list[str], arch: str = "convnet") -> pd.DataFrame:
    """Return the size in kB of each net in each file format, one row per net; NaN if the format cannot hold the net.

    Args:
        names: The schemes of the nets. Recorded nets are used where they exist, untrained nets elsewhere.
        arch: The architecture.
    """
    return pd.DataFrame([_sizes(net_of(name, arch)) for name in names], index=names).rename_axis("net").round(0)


def _sizes(net: nn.Module) -> dict[str, float]:
    size = dict(packing.size_report(net).loc["all"] / 1000)
    with tempfile.TemporaryDirectory() as folder:
        for format in onnx_export.FORMATS:
            with _refusable():
                path = onnx_export.export(net, Path(folder) / "net.onnx", format)
                size[f"ONNX {format}"] = path.stat().st_size / 1000
        with _refusable():
            paths = openvino_export.save(net, Path(folder) / "net.xml")
            size["OpenVINO"] = sum(path.stat().st_size for path in paths) / 1000
    return size


@contextmanager
def _refusable() -> Iterator[None]:
    """Skip a format that does not support the net, but raise the error if a file cannot be written."""
    try:
        yield
    except NotWritten:
        raise
    except CourseError:
        pass


def net_of(name: str, arch: str) -> nn.Module:
    """Return the recorded net or, if there is none, an untrained one, which has the same size and speed."""
    net = _recorded(name, arch)
    return build(name, arch).eval() if net is None else net


def _recorded(name: str, arch: str) -> nn.Module | None:
    """Return the recorded net; None if there is none."""
    try:
        return recorded_net(name, arch)
    except Unreadable:
        raise
    except CourseError:
        return None


def in_pytorch(net: nn.Module, bf16: bool = False) -> Forward:
    """Return a function from uint8 images to logits, which normalizes the images and runs `net` in PyTorch.

    Args:
        net: The net.
        bf16: Whether to run a copy whose weights are bf16, so that no call has to convert them.
    """
    layout = torch.channels_last
    net = copy.deepcopy(net).to(memory_format=layout)
    if bf16:
        net = net.bfloat16()
    dtype = torch.bfloat16 if bf16 else torch.float32
    return lambda images: net(normalize(images).to(dtype, memory_format=layout)).float()


def _backends(arch: str, batch: int, threads: int, folder: Path, calibration: torch.Tensor) -> dict[str, Backend]:
    """Return each backend of `inference` by its name; `folder` keeps the files that they load."""
    if onnx_export.missing() or not openvino_export.available():
        raise CourseError("The benchmark needs extra packages: run `pip install -e '.[deploy]'` in the course folder.")
    names = {"fp32": "PytorchNN", "int8": "Int8NN", "W1A1": "XnorNN"}
    nets = {title: net_of(name, arch) for title, name in names.items()}
    packed = {title: packing.kilobytes(net) for title, net in nets.items()}
    backends, has_bf16 = {}, hardware.bf16_is_fast(torch.device("cpu"))

    def add(name: str, run: Forward, title: str, loaded: float, source: str) -> None:
        backends[name] = Backend(run, names[title], packed[title], loaded, source)

    floats = packed["fp32"]
    add("PyTorch fp32", in_pytorch(nets["fp32"]), "fp32", floats, f"PytorchNN:{arch}")
    add("PyTorch W1A1, simulated", in_pytorch(nets["W1A1"]), "W1A1", floats, f"XnorNN:{arch}")
    if has_bf16:
        add("PyTorch bf16", in_pytorch(nets["fp32"], bf16=True), "fp32", floats / 2, f"PytorchNN:{arch}")
    files = {
        "fp32": onnx_export.export(nets["fp32"], folder / "float.onnx"),
        "int8": int8_export.export_int8(nets["fp32"], folder / "int8.onnx", calibration),
        "int8, QCDQ": onnx_export.export(nets["int8"], folder / "qcdq.onnx"),
    }
    for title, path in files.items():
        run = onnx_export.session(path, exact=False, threads=threads)
        add(f"ONNX Runtime {title}", run, title.partition(",")[0], _file_kilobytes([path]), str(path))
    # `quantize_static` gets the float net: rounding it costs less accuracy than a training with 8 bits did.
    backends["ONNX Runtime int8"].net = "PytorchNN"
    for title, net in nets.items():
        # `memory` has to load what is timed: an exact file would neither compute in 8 bits nor in bf16.
        paths = openvino_export.save(net, folder / f"{title}.xml", exact=False)
        size = _file_kilobytes(paths)
        for precision in ("f32", None) if title == "fp32" and has_bf16 else ("f32",):
            run = openvino_export.compiled(net, batch, threads, preprocess=True, precision=precision)
            add(f"OpenVINO {title if precision else 'bf16'}", run, title, size, str(paths[0]))
    if library := _library(nets["W1A1"], folder):
        add("C W1A1", c.load_library(library), "W1A1", _file_kilobytes([library]), str(library))
    return backends


def _library(net: nn.Module, folder: Path) -> Path | None:
    """Return the C program of `net` as a library; None without a compiler, and with a warning if it cannot be used."""
    if c.compiler() is None:
        return None
    try:
        library = c.build_library(c.export_c(net, folder / "net.c"), folder / "net.so")
        c.load_library(library)
    except NotWritten:
        raise
    except CourseError as error:  # the compiler may make programs for another system, for example
        warnings.warn(f"The C program is left out. {error}", stacklevel=2)
        return None
    return library


def _folder() -> tempfile.TemporaryDirectory:
    """Return a temporary folder. Windows cannot delete a library that is loaded, and leaves it there."""
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


def _file_kilobytes(paths: list[Path]) -> float:
    return sum(path.stat().st_size for path in paths) / 1000


def _time(forwards: dict[str, Forward], images: torch.Tensor, repeats: int) -> dict[str, float]:
    """Return the median seconds per call of each function."""

    def calls(forward: Forward, count: int) -> Iterator[torch.Tensor]:
        return (forward(images) for _ in range(count))

    counts = {}
    for name, forward in forwards.items():
        estimate = medians(alternate({name: lambda forward=forward: calls(forward, 3)}, 3))[name] / 3
        counts[name] = max(1, round(SECONDS_PER_TURN / estimate))
    turns = {
        name: lambda name=name, forward=forward: calls(forward, counts[name]) for name, forward in forwards.items()
    }
    return {name: seconds / counts[name] for name, seconds in medians(alternate(turns, repeats)).items()}
