"""Run an exported net in one program that is not part of the course.

`tools.clients` starts this file with the Python of an environment that has the program, so it imports nothing of the
course: `python client_programs.py CLIENT FILE IMAGES ANSWERS`. IMAGES is an .npy file with images as FILE takes them.
ANSWERS is the JSON file to write.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

Answer = tuple[np.ndarray, str]  # the logits, and a note
WEB = Path(__file__).with_name("client_in_node.mjs")


def onnxruntime(path: str, images: np.ndarray) -> Answer:
    """ONNX Runtime with its default options."""
    import onnxruntime as ort

    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0], f"onnxruntime {ort.__version__}"


def onnxruntime_basic(path: str, images: np.ndarray) -> Answer:
    """ONNX Runtime with basic optimizations only."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0], f"onnxruntime {ort.__version__}"


def onnxruntime_web(path: str, images: np.ndarray) -> Answer:
    """onnxruntime-web in Node.js; NODE_PATH has to name the folder node_modules that contains it."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "images.bin"
        pixels.write_bytes(images.tobytes())
        command = ["node", str(WEB), path, str(pixels), *map(str, images.shape)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found = json.loads(done.stdout)
    return np.array(found["logits"]).reshape(len(images), -1), f"onnxruntime-web {found['version']}"


def openvino(path: str, images: np.ndarray) -> Answer:
    """OpenVINO with its default options."""
    import openvino as ov

    model = ov.Core().compile_model(path, "CPU")
    return np.concatenate([model({"images": image[None]})["logits"] for image in images]), f"openvino {ov.__version__}"


def qonnx(path: str, images: np.ndarray) -> Answer:
    """The package qonnx, after its cleanup."""
    model = _clean(path)
    return _execute(model, images), f"qonnx {version('qonnx')}"


def qonnx_channels_last(path: str, images: np.ndarray) -> Answer:
    """The package qonnx, after its cleanup and its conversion to channels-last."""
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean

    model = _clean(path).transform(ConvertToChannelsLastAndClean(make_input_channels_last=False))
    return _execute(model, images), f"qonnx {version('qonnx')}"


def finn(path: str, images: np.ndarray) -> Answer:
    """The steps of FINN that need no hardware tools: conversion, streamlining, lowering of convolutions."""
    from finn.transformation.qonnx.convert_qonnx_to_finn import ConvertQONNXtoFINN
    from finn.transformation.streamline import Streamline
    from qonnx.transformation.infer_data_layouts import InferDataLayouts
    from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul

    model, logits, done = _clean(path), None, []
    steps = {"converted": ConvertQONNXtoFINN, "streamlined": Streamline, "lowered": LowerConvsToMatMul}
    for name, step in steps.items():
        try:
            model = model.transform(InferDataLayouts()).transform(step())
            logits = _execute(model, images)
        except Exception as error:
            if logits is None:
                raise
            return logits, f"{', '.join(done)}; not {name}: {_line(error)}"
        done.append(name)
    return logits, ", ".join(done)


def hls4ml(path: str, images: np.ndarray) -> Answer:
    """The C simulation of hls4ml, whose numbers have 24 bits, after the conversion to channels-last."""
    import hls4ml as hls
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.transformation.gemm_to_matmul import GemmToMatMul
    from qonnx.util.cleanup import cleanup_model

    model = cleanup_model(_clean(path).transform(ConvertToChannelsLastAndClean()).transform(GemmToMatMul()))
    settings = {"granularity": "name", "backend": "Vitis", "default_precision": "ap_fixed<24,10>"}
    config = hls.utils.config_from_onnx_model(model, **settings)
    with tempfile.TemporaryDirectory() as folder:
        net = hls.converters.convert_from_onnx_model(
            model, output_dir=folder, io_type="io_stream", backend="Vitis", hls_config=config
        )
        net.compile()
        found = net.predict(np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
    return found.reshape(len(images), -1), f"hls4ml {version('hls4ml')}"


def torch_export(path: str, images: np.ndarray) -> Answer:
    """PyTorch, which loads what torch.export saved."""
    import torch

    net = torch.export.load(path).module()
    with torch.no_grad():
        return np.concatenate([net(torch.from_numpy(image[None])).numpy() for image in images]), ""


def executorch(path: str, images: np.ndarray) -> Answer:
    """ExecuTorch with XNNPACK, from what torch.export saved."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    exported = torch.export.load(path)
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    method = Runtime.get().load_program(program.buffer).load_method("forward")
    found = [method.execute([torch.from_numpy(image[None])])[0].clone().numpy() for image in images]
    return np.concatenate(found), f"executorch {version('executorch')}, {len(program.buffer) // 1000} kB"


def iree(path: str, images: np.ndarray) -> Answer:
    """IREE, which compiles the net for this CPU."""
    import iree.runtime as ireert
    from iree.compiler.tools import InputType, compile_file

    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "net.mlir"
        importing = [sys.executable, "-m", "iree.compiler.tools.import_onnx", path, "-o", str(text)]
        importing += ["--opset-version", "17"]  # IREE does not know the BatchNormalization of older versions
        subprocess.run(importing, check=True, capture_output=True)
        options = ["--iree-llvmcpu-target-cpu=host"]
        binary = compile_file(str(text), input_type=InputType.ONNX, target_backends=["llvm-cpu"], extra_args=options)
    config = ireert.Config("local-task")
    context = ireert.SystemContext(config=config)
    context.add_vm_module(ireert.VmModule.copy_buffer(context.instance, binary))
    module = next(module for name, module in context.modules.items() if name != "hal")
    run = next(
        module[name] for name in module.vm_module.function_names if not name.startswith("__") and "$" not in name
    )
    found = [np.asarray(run(image[None]).to_host()) for image in images]
    return np.concatenate(found), f"iree {version('iree-base-compiler')}"


def tvm(path: str, images: np.ndarray) -> Answer:
    """TVM, which compiles the net for this CPU."""
    import onnx
    import tvm as compiler
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    model = from_onnx(onnx.load(path), shape_dict={"images": [1, *images.shape[1:]]}, keep_params_in_input=False)
    machine = relax.VirtualMachine(relax.build(relax.get_pipeline("zero")(model), "llvm"), compiler.cpu())
    found = [machine["main"](compiler.runtime.tensor(image[None])) for image in images]
    found = [answer if hasattr(answer, "numpy") else answer[0] for answer in found]
    return np.concatenate([answer.numpy() for answer in found]), f"tvm {compiler.__version__}"


def _clean(path: str):
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.cleanup import cleanup_model

    return cleanup_model(ModelWrapper(path))


def _execute(model, images: np.ndarray) -> np.ndarray:
    from qonnx.core.onnx_exec import execute_onnx

    (source,), (sink,) = model.graph.input, model.graph.output
    return np.concatenate([execute_onnx(model, {source.name: image[None]})[sink.name] for image in images])


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


PROGRAMS: dict[str, Callable[[str, np.ndarray], Answer]] = {
    program.__name__: program
    for program in (
        onnxruntime,
        onnxruntime_basic,
        onnxruntime_web,
        openvino,
        qonnx,
        qonnx_channels_last,
        finn,
        hls4ml,
        torch_export,
        executorch,
        iree,
        tvm,
    )
}


def main() -> None:
    """Run one program and write its predictions, or the reason why there are none."""
    client, path, images, answers = sys.argv[1:]
    try:
        logits, note = PROGRAMS[client](path, np.load(images, allow_pickle=False))  # noqa: TID251, it has nothing of the course
        found = {"classes": np.asarray(logits).argmax(1).tolist(), "note": note}
    except ModuleNotFoundError as error:
        found = {"missing": _line(error)}
    except Exception as error:  # programs raise almost anything for what they cannot run
        found = {"refused": f"{type(error).__name__}: {_line(error)}"}
    Path(answers).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
