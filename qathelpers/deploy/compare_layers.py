"""Compare the activations of a net in two versions, layer by layer, to find where a broken export goes wrong."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from brevitas.nn.mixin.base import QuantLayerMixin
from torch import nn

from ..analysis import plots
from ..common.errors import CourseError, check_type, raise_if_of_the_machine
from ..common.files import as_path
from ..data.batches import normalize
from ..nets import weights
from . import onnx_export

SMALLEST = 1e-9  # what plots show for a difference of 0, which a log axis cannot
LINES = ("black", "#D55E00", "#0072B2")
TOLERANCE = 1e-4  # of the largest activation of a layer; float sums in another order differ by less


def compare(net: nn.Module, other: nn.Module | str | Path, images: torch.Tensor, exact: bool = True) -> pd.DataFrame:
    """Compare what each layer of `net` computes with what the same layer computes in another version of the net.

    Args:
        net: The net to compare with, in eval mode.
        other: Another net with layers of the same names, in eval mode, or the path of a QCDQ file that
            `onnx_export.export` wrote; ONNX Runtime runs the file and returns the output of every layer.
        images: Images (n, channels, h, w): uint8, which are normalized first, or normalized floats if both versions
            take them. For a file with a fixed batch size, as many as it was exported for.
        exact: See `onnx_export.run`; for files only.

    Returns:
        One row per layer, in the order in which `net` computes them, with the column `difference`: the largest
        difference of an activation, divided by the magnitude of the layer's largest activation. It is NaN where the
        other version has no output of this layer (an exporter may leave out or merge layers).

    Raises:
        CourseError: If a package or the file is missing, if the file is not an ONNX file, needs other images or another
            number of them, if a net does not accept the images, is in training mode or uses a layer more than once, if
            no layer has a counterpart, or if two outputs differ in shape.
    """
    weights.check_net(net)
    check_type("images", images, torch.Tensor, onnx_export.IMAGES)
    if images.ndim < 2 or not len(images):
        raise CourseError(f"The images have the shape {tuple(images.shape)}: pass images (n, channels, h, w).")
    normalized = normalize(images) if images.dtype == torch.uint8 else images
    expected = _of_net(net, normalized)
    if isinstance(other, nn.Module):
        found = _of_net(other, normalized)
    else:
        found = _of_file(as_path("other", other), expected, images, exact)
    if not expected.keys() & found.keys():
        raise CourseError("No layer has the same name in both versions: compare two versions of one net.")
    rows = [_difference(name, output, found.get(name)) for name, output in expected.items()]
    return pd.DataFrame({"difference": rows}, index=pd.Index(list(expected), name="layer"))


def first_different(table: pd.DataFrame, tolerance: float = TOLERANCE) -> str | None:
    """Return the first layer in a table of `compare` whose difference exceeds `tolerance`, or None if none does.

    Layers after it differ, too, because their inputs do; whether they are right themselves, the table does not say.
    """
    different = table.index[table["difference"] > tolerance]
    return different[0] if len(different) else None


def plot(tables: dict[str, pd.DataFrame]) -> plots.Figure:
    """Plot the differences of some tables of `compare`, one line per table, on a log axis.

    Args:
        tables: Tables of one net, by the label of their line.
    """
    figure, axes = plots.new(8, 3.6)
    texts = []
    for number, (title, table) in enumerate(tables.items()):
        gaps, first = table["difference"], first_different(table)
        (line,) = axes.plot(gaps.index, gaps.clip(lower=SMALLEST), "o-", color=LINES[number % len(LINES)])
        end = (len(gaps) - 1, max(gaps.iloc[-1], SMALLEST))
        axes.annotate(title, end, (6, -3), textcoords="offset points", color=line.get_color())
        texts.append(f"{title}: {f'more than {TOLERANCE} from {first} on' if first else f'at most {gaps.max():.0e}'}")
    axes.set(yscale="log", ylabel="difference / largest value")
    axes.tick_params(axis="x", rotation=60)
    axes.margins(y=0.15)
    return figure.with_alt(f"Line chart of the difference of each layer, on a log axis. {'; '.join(texts)}.")


def _layers(net: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of `net` with their names, without the parts that a Brevitas layer consists of."""
    for name, child in net.named_children():
        whole = isinstance(child, QuantLayerMixin) or next(child.children(), None) is None
        if whole or not isinstance(child, nn.Sequential):
            yield prefix + name, child
        if not whole:
            yield from _layers(child, f"{prefix}{name}.")


@torch.no_grad()
def _of_net(net: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the output of each layer of `net`, by the layer's name, in the order of computation."""
    if net.training:
        raise CourseError("The net is in training mode: call net.eval() before you compare it.")
    outputs, calls = {}, Counter()

    def keep(name: str, output: torch.Tensor) -> None:
        calls[name] += 1
        outputs[name] = getattr(output, "value", output).detach().float().cpu().clone()

    hooks = [
        layer.register_forward_hook(lambda module, inputs, output, name=name: keep(name, output))
        for name, layer in _layers(net)
    ]
    try:
        net(images)
    except Exception as error:  # a net can raise anything
        raise_if_of_the_machine(error)
        reason = str(error).strip().partition("\n")[0]
        raise CourseError(
            f"{type(net).__name__} does not accept images of the shape {tuple(images.shape)} and the type "
            f"{images.dtype} ({reason}): pass images like those that it was trained on."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if repeated := [name for name, count in calls.items() if count > 1]:
        raise CourseError(f"{repeated[0]} is used more than once: give each use a layer of its own.")
    return outputs


def _of_file(
    path: Path, expected: dict[str, torch.Tensor], images: torch.Tensor, exact: bool
) -> dict[str, torch.Tensor]:
    """Return the outputs that the QCDQ file at `path` computes for the layers in `expected`."""
    model = onnx_export.load(path)
    import onnx

    if onnx_export.is_qonnx(model):
        raise CourseError(f"{path.name} is a QONNX file, which ONNX Runtime cannot run: export with format='qcdq'.")
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if batch not in (0, len(images)):  # 0 stands for any number
        raise CourseError(f"{path.name} was exported for {batch} images and got {len(images)}: pass images[:{batch}].")
    if images.dtype == torch.uint8 and not onnx_export.takes_bytes(path):
        images = normalize(images)
    sources = {name: source for name in expected if (source := _output_of(model, name))}
    known = {output.name for output in model.graph.output}
    for source in dict.fromkeys(sources.values()):
        if source not in known:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(source))
    computed = onnx_export.all_outputs(model.SerializeToString(), exact)(images)
    return {name: computed[source] for name, source in sources.items()}


def _output_of(model, name: str) -> str | None:
    """Return the tensor that a layer computes in an ONNX model, or None if the model has no step of this layer.

    The exporter calls the steps of the layer blocks.0.widen.1 "/blocks/blocks.0/widen/widen.1/Conv" and the like.
    """
    scope = ""
    for part in name.split("."):
        scope += f"/{scope.rpartition('/')[2]}.{part}" if part.isdigit() and scope else f"/{part}"
    steps = [node for node in model.graph.node if node.name.startswith(f"{scope}/")]
    return steps[-1].output[0] if steps else None


def _difference(name: str, expected: torch.Tensor, found: torch.Tensor | None) -> float:
    if found is None:
        return float("nan")
    if found.shape != expected.shape:
        raise CourseError(
            f"{name} returns {tuple(expected.shape)} in one version and {tuple(found.shape)} in the other: compare two "
            "versions of one net."
        )
    largest = expected.abs().max().item()
    gap = (found - expected).abs().max().item()
    return gap / largest if largest else gap
