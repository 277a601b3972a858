"""Export a net to any format of the course, as `qat export` does."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..common.errors import CourseError
from ..common.files import check_replaceable, check_writable
from ..nets.architectures import spec_of
from . import c, int8_export, onnx_export, openvino_export

CALIBRATION = 256  # training images from which the ranges of activations are estimated


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Args:
        suffix: What the names of its files end with.
        runs_in: The programs that run it, for the user.
        options: The options that can be chosen for it.
    """

    suffix: str
    runs_in: str
    options: tuple[str, ...] = ()


FORMATS = {
    "c": Format(".c", "any C99 program; cc -std=c99 -O3 -DNET_MAIN makes one that reads raw images from its input"),
    "qcdq": Format(".onnx", "ONNX Runtime and other programs that read ONNX", ("floats", "batch", "fast")),
    "qonnx": Format(".onnx", "the package qonnx; with --floats also FINN and hls4ml", ("floats", "batch")),
    "int8": Format(".onnx", "ONNX Runtime, with 8-bit convolutions", ("floats",)),
    "openvino": Format(".xml", "OpenVINO; copy the .bin file beside it, too", ("floats", "fast")),
}


def check(format: str, path: Path, **options: bool | int | None) -> None:
    """Check the format, its options and the name of the file before any work.

    Args:
        format: A key of `FORMATS`.
        path: The file to write.
        options: What the user chose, by the names in `Format.options`.

    Raises:
        CourseError: If the format does not exist or has no such option, if its files have another suffix, if packages
            are missing, or if `path` cannot be written.
    """
    if format not in FORMATS:
        raise CourseError(f"There is no format {format!r}: choose one of {', '.join(FORMATS)}.")
    for option, chosen in options.items():
        if chosen and option not in FORMATS[format].options:
            having = ", ".join(name for name, kind in FORMATS.items() if option in kind.options)
            raise CourseError(f"The format {format} has no option --{option}: leave it out, or choose {having}.")
    suffix = FORMATS[format].suffix
    if path.suffix != suffix:
        raise CourseError(
            f"{path.name!r} does not end with {suffix}, as files of the format {format} do: add {suffix}."
        )
    if format == "openvino" and not openvino_export.available():
        raise CourseError(openvino_export.MISSING)
    if suffix == ".onnx":
        onnx_export.check_packages()
    check_writable(path.parent)
    for file in files_of(format, path):
        check_replaceable(file)


def files_of(format: str, path: Path) -> tuple[Path, ...]:
    """Return all files that an export to `path` writes."""
    return (path, path.with_suffix(".bin")) if format == "openvino" else (path,)


def export(
    net: nn.Module,
    format: str,
    path: Path,
    floats: bool = False,
    fast: bool = False,
    batch: int | None = None,
    images: Callable[[], torch.Tensor] | None = None,
) -> list[Path]:
    """Export `net` to a file of a format in `FORMATS`; return the paths of all files that were written.

    Args:
        net: The net.
        format: A key of `FORMATS`.
        path: The file to write.
        floats: Whether the file takes normalized floats instead of bytes.
        fast: Whether the runtime may round more than the net does (`exact=False` of `openvino_export.save` and
            `onnx_export.export`).
        batch: How many images an ONNX file takes; None for the default of `onnx_export.export`.
        images: Returns uint8 training images, for the format "int8".

    Raises:
        CourseError: In the cases that `check` names and if the format cannot hold the net.
    """
    check(format, path, floats=floats, fast=fast, batch=batch)
    preprocess = False if floats else None
    if format == "c":
        return [c.export_c(net, path)]
    if format == "openvino":
        return openvino_export.save(net, path, preprocess=preprocess, exact=not fast)
    if format == "int8":
        if images is None:
            raise CourseError(f"The format int8 needs images: pass those that {spec_of(net).name} was trained on.")
        return [int8_export.export_int8(net, path, images()[:CALIBRATION], preprocess=not floats)]
    return [onnx_export.export(net, path, format, images=batch, preprocess=preprocess, exact=not fast)]
