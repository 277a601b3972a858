"""Compare the inference speed, accuracy and size of nets on this CPU, in PyTorch, ONNX Runtime and OpenVINO."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from . import int8_export, onnx_export, openvino_export

REPEATS = 15
SECONDS_PER_TURN = 0.05  # each turn has as many calls as fit; far longer than the resolution of the clock
TEST_BATCH = 100
CALIBRATION = 256  # images

Forward = Callable[[torch.Tensor], torch.Tensor]


def inference(batch: int = 1, threads: int = 1, arch: str = "convnet", repeats: int = REPEATS) -> pd.DataFrame:
    """Time the inference of the nets of one architecture in each backend.

    PyTorch runs the float net and the simulated W1A1 net. ONNX Runtime runs the float net, the same net quantized to 8
    bits by ONNX Runtime itself (`int8_export`), and the trained 8-bit net as a QCDQ file. OpenVINO runs the float net,
    the 8-bit net and the W1A1 net. Where the processor is fast at bf16, PyTorch and OpenVINO also run the float net in
    bf16, which is OpenVINO's default there. The backends take turns in one process. All of them get normalized images,
    so the normalization is not part of any time.

    Args:
        batch: The number of images per call.
        threads: The number of CPU threads.
        arch: The architecture.
        repeats: The number of turns per backend.

    Returns:
        One row per backend, with the columns `ms per image` (median), `speedup` (compared with PyTorch's float net),
        `kB` (size of the packed weights), `file kB` (size of what the backend loads), `batch` and `threads`.

    Raises:
        CourseError: If the extra packages are not installed.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            drawn, _ = shapes.make(CALIBRATION, 1)[:2]  # times do not depend on the images
            backends = _backends(arch, batch, threads, Path(folder), drawn)
            forwards = {name: forward for name, (forward, *_) in backends.items()}
            seconds = _time(forwards, torch.randn(batch, 3, 32, 32), repeats)
    finally:
        torch.set_num_threads(threads_before)
    rows = [
        {
            "backend": name,
            "ms per image": 1000 * seconds[name] / batch,
            "speedup": seconds["PyTorch fp32"] / seconds[name],
            "kB": size,
            "file kB": loaded,
            "batch": batch,
            "threads": threads,
        }
        for name, (_, size, loaded) in backends.items()
    ]
    return pd.DataFrame(rows).round({"ms per image": 3, "speedup": 2, "kB": 0, "file kB": 0}).set_index("backend")


@torch.no_grad()
def accuracies(dataset: Dataset, arch: str = "convnet") -> pd.Series:
    """Return the test accuracy (0 to 1) of the recorded nets in each backend.

    Exported nets have a fixed batch size of 100, so the last `len(test_images) % 100` test images are not used.
    """
    images, labels = dataset.test_images, dataset.test_labels
    count = len(labels) // TEST_BATCH * TEST_BATCH
    correct = {}
    with tempfile.TemporaryDirectory() as folder:
        calibration = dataset.train_images[:CALIBRATION]
        backends = _backends(arch, TEST_BATCH, torch.get_num_threads(), Path(folder), calibration)
        for part, expected in zip(images[:count].split(TEST_BATCH), labels[:count].split(TEST_BATCH), strict=True):
            normalized = normalize(part)
            for name, (forward, *_) in backends.items():
                correct[name] = correct.get(name, 0) + (forward(normalized).argmax(1) == expected).sum().item()
    return pd.Series(correct, name="accuracy") / count


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


def everything(dataset: Dataset, arch: str = "convnet") -> pd.DataFrame:
    """Print the tables of `inference` for batch sizes 1 and 64, on one thread and on all, and the accuracies.

    Returns:
        The rows of all tables of `inference`.
    """
    all_threads = torch.get_num_threads()
    print(f"{hardware.describe(torch.device('cpu'))}; {arch}, median of {REPEATS} turns; accuracies on: {dataset}")
    tables = [inference(batch, threads, arch) for threads in sorted({1, all_threads}) for batch in (1, 64)]
    for table in tables:
        print(f"\nbatch size {table['batch'].iloc[0]}, {table['threads'].iloc[0]} threads")
        print(table.drop(columns=["batch", "threads"]).to_string())
    macs = costs.layers(build("XnorNN", arch)).query("W == 1 and A == 1")["MACs"].sum()
    rate, peak = 2e3 * macs / tables[0].loc["OpenVINO W1A1", "ms per image"], binary_peak()
    print(f"\nThe W1A1 net reaches {rate / 1e9:.0f} billion binary operations per second (batch size 1, one thread).")
    print(f"That is {rate / peak:.0%} of the {peak / 1e9:.0f} billion that one large binary convolution reaches.\n")
    print(accuracies(dataset, arch).round(4).to_string())
    return pd.concat(tables)


def sizes(names: list[str], arch: str = "convnet") -> pd.DataFrame:
    """Return the size in kB of each net in each file format, one row per net; NaN if the format cannot hold the net.

    Args:
        names: The schemes of the nets. Recorded nets are used where they exist, untrained nets elsewhere.
        arch: The architecture.
    """
    return pd.DataFrame([_sizes(_net(name, arch)) for name in names], index=names).rename_axis("net").round(0)


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
    """Leave out a format that refuses the net, but not one whose file could not be written."""
    try:
        yield
    except NotWritten:
        raise
    except CourseError:
        pass


def _net(name: str, arch: str) -> nn.Module:
    """Return the recorded net or, if there is none, an untrained one, which has the same size and speed."""
    try:
        return recorded_net(name, arch)
    except Unreadable:
        raise
    except CourseError:
        return build(name, arch).eval()


def _backends(
    arch: str, batch: int, threads: int, folder: Path, calibration: torch.Tensor
) -> dict[str, tuple[Forward, float, float]]:
    """Return for each backend the function that runs its net on normalized images, and two sizes in kB.

    The sizes are those of the packed weights and of what the backend loads.
    """
    if onnx_export.missing() or not openvino_export.available():
        raise CourseError("The benchmark needs extra packages: run `pip install -e '.[deploy]'` in the course folder.")
    float_net, int8_net, xnor_net = (_net(name, arch) for name in ("PytorchNN", "Int8NN", "XnorNN"))
    files = {
        "fp32": onnx_export.export(float_net, folder / "float.onnx", preprocess=False),
        "int8": int8_export.export_int8(float_net, folder / "int8.onnx", calibration, preprocess=False),
        "int8, QCDQ": onnx_export.export(int8_net, folder / "qcdq.onnx", preprocess=False),
    }
    nets = {"fp32": float_net, "int8": int8_net, "W1A1": xnor_net}
    packed = {title: packing.kilobytes(net) for title, net in nets.items()}
    floats, in_bf16 = packed["fp32"], packed["fp32"] / 2
    backends = {
        "PyTorch fp32": (_channels_last(float_net), floats, floats),
        "PyTorch W1A1, simulated": (_channels_last(xnor_net), floats, floats),
    }
    for title, path in files.items():
        session = onnx_export.session(path, exact=False, threads=threads)
        backends[f"ONNX Runtime {title}"] = (session, packed[title.partition(",")[0]], _file_kilobytes([path]))
    for title, net in nets.items():
        size = _file_kilobytes(openvino_export.save(net, folder / "net.xml", preprocess=False))
        backends[f"OpenVINO {title}"] = (openvino_export.compiled(net, batch, threads), packed[title], size)
    if hardware.bf16_is_fast(torch.device("cpu")):
        backends["PyTorch bf16"] = (_in_bf16(float_net), in_bf16, in_bf16)
        run = openvino_export.compiled(float_net, batch, threads, precision=None)
        backends["OpenVINO bf16"] = (run, *backends["OpenVINO fp32"][1:])
    return backends


def _file_kilobytes(paths: list[Path]) -> float:
    return sum(path.stat().st_size for path in paths) / 1000


def _channels_last(net: nn.Module) -> Forward:
    net = net.to(memory_format=torch.channels_last)
    return lambda images: net(images.contiguous(memory_format=torch.channels_last))


def _in_bf16(net: nn.Module) -> Forward:
    """Return the forward pass of a copy of `net` whose weights are bf16, so that no call has to convert them."""
    forward = _channels_last(copy.deepcopy(net).bfloat16())
    return lambda images: forward(images.bfloat16()).float()


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
