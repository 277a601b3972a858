"""A program for `benchmark.memory`: how much memory one backend adds to a process that has only imported it.

It runs in a process of its own, imports only its backend, and prints a number of megabytes. Arguments: the runtime, the
file to load (for PyTorch, the net and the architecture), the precision, and the number of images per call.
"""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

IMAGE, CLASSES, CALLS = (3, 32, 32), 10, 3

Run = Callable[[], object]


# Each of these functions imports a backend, and returns a function that loads the net and returns how to run it.
def c(source: str, precision: str, batch: int) -> Callable[[], Run]:
    """Prepare a library of `build_library`."""
    import ctypes

    def load() -> Run:
        library = ctypes.CDLL(source)
        image, scores = (ctypes.c_uint8 * (3 * 32 * 32))(), (ctypes.c_float * CLASSES)()
        return lambda: [library.net_scores(image, scores) for _ in range(batch)]

    return load


def pytorch(source: str, precision: str, batch: int) -> Callable[[], Run]:
    """Prepare a net in PyTorch, which `source` names, such as XnorNN:convnet."""
    import torch

    from qathelpers.deploy import benchmark

    def load() -> Run:
        run = benchmark.in_pytorch(benchmark.net_of(*source.split(":")), bf16=precision == "bf16")
        images = torch.zeros((batch, *IMAGE), dtype=torch.uint8)
        return torch.no_grad()(lambda: run(images))

    torch.set_num_threads(1)
    return load


def onnx_runtime(source: str, precision: str, batch: int) -> Callable[[], Run]:
    """Prepare an ONNX file."""
    import numpy as np
    import onnxruntime

    def load() -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: np.zeros((batch, *IMAGE), np.uint8)}
        return lambda: session.run(None, feed)

    return load


def openvino(source: str, precision: str, batch: int) -> Callable[[], Run]:
    """Prepare a graph of OpenVINO."""
    import numpy as np
    import openvino

    def load() -> Run:
        core, options = openvino.Core(), {"INFERENCE_NUM_THREADS": 1}
        model = core.read_model(source)
        model.reshape([batch, *IMAGE])
        options |= {} if precision == "bf16" else {"INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", options).create_infer_request()
        return lambda: request.infer([np.zeros((batch, *IMAGE), np.uint8)])

    return load


def status(name: str) -> float:
    """Return a line of /proc/self/status in kB: VmRSS is the memory in use, VmHWM the largest one so far.

    NaN if there is no such file or line, as in some containers.
    """
    file = Path("/proc/self/status")
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return float((text.partition(f"{name}:")[2].split() or ["nan"])[0])


def main(runtime: str, source: str, precision: str, batch: str) -> None:
    """Print the megabytes."""
    backends = {"C": c, "PyTorch": pytorch, "ONNX Runtime": onnx_runtime, "OpenVINO": openvino}
    load = backends[runtime](source, precision, int(batch))
    with contextlib.suppress(OSError):  # the peak starts again from here, if the system allows it
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = status("VmRSS")
    run = load()
    for _ in range(CALLS):
        run()
    print((status("VmHWM") - before) / 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
