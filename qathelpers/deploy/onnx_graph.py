"""Complete an exported ONNX graph: normalization of the images, names of inputs and outputs, and metadata."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..data.batches import STATISTICS, whitening_filter
from ..nets.architectures import NetSpec, spec_of

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "images", "logits"
NORMALIZED = "normalized"  # the images after the normalization inside the file
SCOPE = "/normalize"  # in the names of the nodes that normalize
HUGE = 1e38  # larger than any weight
PACKAGES = ("qathelpers", "torch", "brevitas")
# All settings are given, even the default ones, because qonnx's conversion to channels-last asks for them.
CONV = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1}
PRECISION = (
    'OpenVINO may compute in bf16, which moves values across rounding thresholds: compile_model(path, "CPU", '
    '{"INFERENCE_PRECISION_HINT": "f32"}) prevents this.'
)
ROUNDING = (
    "ONNX Runtime may round the inputs of linear layers to 8 bits: SessionOptions with graph_optimization_level = "
    "ORT_ENABLE_BASIC prevent this. "
)


def metadata(net: nn.Module, shape: tuple[int, ...], takes_bytes: bool, classes: Sequence[str] | None) -> dict:
    """Return the metadata of an exported file, which users of the file need, as texts.

    Args:
        net: The net.
        shape: The shape of one image (channels, height, width).
        takes_bytes: Whether the file takes uint8 images and normalizes them itself.
        classes: The names of the classes in the order of the logits, if they are known.
    """
    spec = spec_of(net)
    size = " x ".join(map(str, shape[1:]))
    colours = {1: "grey", 3: "RGB"}.get(shape[0], f"{shape[0]} channels")
    entries = {
        "scheme": spec.name,
        "bits": spec.bits,
        "arch": spec.arch,
        "config": json.dumps(config(spec)),
        "input": f"uint8 images from 0 to 255, {colours}, {size} pixels, (n, {', '.join(map(str, shape))}); the file "
        "normalizes them itself"
        if takes_bytes
        else f"float32 (n, {', '.join(map(str, shape))}), normalized as by qathelpers.data.normalize",
        "output": "logits, one per class; softmax turns them into probabilities",
        "source": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "precision": PRECISION,
    }
    if classes is not None:
        entries["classes"] = json.dumps(list(classes))
    return entries


def config(spec: NetSpec) -> dict:
    """Return a `NetSpec` as numbers and texts, without the classes of the quantizers."""
    return {
        "name": spec.name,
        "bits": spec.bits,
        "arch": spec.arch,
        "init_seed": spec.seed,
        "classes": spec.classes,
        "image_size": spec.image_size,
        "channels": spec.channels,
        "recipe": asdict(spec.recipe),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a copy of the course that was never installed
        return "(version unknown)"


def complete(
    path: Path, shape: tuple[int, int, int], takes_bytes: bool, entries: dict[str, str], exact: bool = False
) -> None:
    """Add metadata and, if wanted, the normalization of bytes to the graph in a file.

    Args:
        path: The file, whose graph has one input and one output. The input is called `NORMALIZED` if the
            normalization is to be added, else `INPUT`.
        shape: The shape of one image (channels, height, width).
        takes_bytes: Whether to add the normalization.
        entries: The metadata.
        exact: See `onnx_export.export`.
    """
    import onnx

    model = onnx.load(str(path))
    if takes_bytes:
        add_normalization(model.graph, shape)
    if exact:
        set_apart(model.graph)
    onnx.helper.set_model_props(model, entries)
    model.producer_name, model.doc_string = "qathelpers", f"{entries['scheme']} ({entries['arch']}): {entries['input']}"
    onnx.save(model, str(path))


def add_normalization(graph: "onnx.GraphProto", shape: tuple[int, int, int]) -> None:
    """Put the steps of `data.normalize` in front of a graph: it takes uint8 images then.

    Args:
        graph: A graph whose input is called `NORMALIZED`.
        shape: The shape of one image (channels, height, width).
    """
    from onnx import TensorProto, helper, numpy_helper

    (old,) = graph.input
    batch = old.type.tensor_type.shape.dim[0]
    new = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [batch.dim_param or batch.dim_value, *shape])
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) * 255 for values in STATISTICS[shape[0]])
    pads = torch.tensor([0, 0, 1, 1] * 2)
    tensors = {"mean": mean, "std": std, "pads": pads, "filter": whitening_filter(channels=shape[0])}
    names = {key: f"{SCOPE}/{key}" for key in tensors}

    def node(kind: str, inputs: list[str], output: str, **options):
        return helper.make_node(kind, inputs, [output], f"{SCOPE}/{kind}", **options)

    steps = [
        node("Cast", [INPUT], f"{SCOPE}/floats", to=TensorProto.FLOAT),
        node("Sub", [f"{SCOPE}/floats", names["mean"]], f"{SCOPE}/centred"),
        node("Div", [f"{SCOPE}/centred", names["std"]], f"{SCOPE}/standardized"),
        node("Pad", [f"{SCOPE}/standardized", names["pads"]], f"{SCOPE}/padded", mode="reflect"),
        node("Conv", [f"{SCOPE}/padded", names["filter"]], NORMALIZED, **CONV),
    ]
    nodes = [*steps, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(new)
    graph.initializer.extend(numpy_helper.from_array(tensor.numpy(), names[key]) for key, tensor in tensors.items())


def set_apart(graph: "onnx.GraphProto") -> None:
    """Clip the dequantized weights of linear layers at numbers that no weight reaches.

    ONNX Runtime merges a matrix product and the dequantization of its weights, and then rounds the inputs of the
    product to 8 bits. It does not merge them across another step.
    """
    from onnx import helper, numpy_helper

    makers = {output: node for node in graph.node for output in node.output}
    limits = {f"{SCOPE}/lowest": -HUGE, f"{SCOPE}/highest": HUGE}
    clips = {}
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        made = makers.get(node.input[1])
        while made is not None and made.op_type == "Transpose":
            made = makers.get(made.input[0])
        if made is not None and made.op_type == "DequantizeLinear":
            clips[made.output[0]] = made
    if not clips:
        return
    nodes = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in clips:
                node.input[i] = f"{name}/apart"
        nodes.append(node)
        nodes += [
            helper.make_node("Clip", [name, *limits], [f"{name}/apart"], f"{name}/Clip")
            for name in node.output
            if name in clips
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(np.array(v, np.float32), name) for name, v in limits.items())
