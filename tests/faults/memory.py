"""How much memory a hostile file takes before it is refused: `python -m tests.faults memory` prints a table.

Each file is opened in a process of its own. The memory is what the process takes in addition to Python, PyTorch and the
course. Linux counts it, so the numbers of other systems are not comparable.
"""

import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from qathelpers.common.errors import CourseError
from qathelpers.data import cifar10, pictures, readers
from qathelpers.training import History, checkpoint

from . import hostile
from .hostile import GIGABYTE

ALLOWED = 8 * GIGABYTE  # of address space, so that a failing test does not take the memory of the whole machine
CONFIG = {"name": "BinaryNN", "arch": "lenet"}


def read_batches(path):
    return readers.read_folder(path.parent)


def read_official(path):
    cifar10.verify(readers.read_official_archive([path]), "it")


def read_pngs(path):
    cifar10.verify(readers.read_png_archive([path]), "it")


def read_tables(path):
    cifar10.verify(readers.read_parquets([path, path]), "it")


def read_small(path):
    return pictures.read_picture(path, 32)


def read_history(path):
    path.with_suffix(".json").write_text('{"name": "BinaryNN"}', encoding="utf-8")
    return History.load(path)


def read_cache(path):
    os.environ["QAT_CACHE_DIR"] = str(path.parent)
    return cifar10._read_cache()


def read_onnx(path):
    import torch

    from qathelpers.deploy import onnx_export

    return onnx_export.run(path, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def with_config(**changes):
    """Return a checkpoint with an own checksum, whose config has `changes`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        return checkpoint.write(path, {}, {"config": CONFIG | changes}).read_bytes()


def packed(shape):
    """Return a packed checkpoint whose first layer claims a shape."""
    import torch

    from qathelpers.nets import build, packing, weights

    net = build("BinaryNN", "lenet")
    tensors, layers = packing.pack_net(net)
    name = next(iter(weights.quantized_layers(net)))
    layers[name] |= {"shape": shape}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "net.safetensors"
        return checkpoint.write(path, tensors, {"config": CONFIG, "packed": layers}).read_bytes()


def onnx_of_constant(size):
    """Return an ONNX file in which one operator makes a tensor of `size` numbers."""
    import onnx
    from onnx import TensorProto, helper

    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [size])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["floats", "sum"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [None, 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 3, 32, 32])],
        [shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@dataclass(frozen=True)
class Case:
    """A hostile file.

    Args:
        name: The name of the file.
        make: Returns its content.
        claims: The bytes that it unpacks to or claims to have.
        read: Opens it.
        limit: The megabytes that this may take.
        refused: Whether the file has to be refused; if not, it is the largest that is accepted.
        slow: Whether making or opening it takes seconds.
    """

    name: str
    make: object
    claims: float
    read: object
    limit: float = 100
    slow: bool = False
    refused: bool = True


TENSOR = {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
HEADER = 100_000_000  # bytes; safetensors refuses longer headers
CASES = {
    "tar.gz: a file of 7 GB": Case(
        "x.tgz",
        lambda: hostile.zeros(7 * GIGABYTE, hostile.tar_header("x/data_batch_1", 7 * GIGABYTE)),
        7 * GIGABYTE,
        read_official,
        slow=True,
    ),
    "tar.gz: a header of 7 GB": Case(
        "x.tgz",
        lambda: hostile.zeros(7 * GIGABYTE, hostile.tar_header("x", 7 * GIGABYTE, b"x")),
        7 * GIGABYTE,
        read_pngs,
        limit=1200,
        slow=True,
    ),
    "tar.gz: nothing but zeros": Case("x.tgz", lambda: hostile.zeros(7 * GIGABYTE), 7 * GIGABYTE, read_pngs, slow=True),
    "tar.gz: files of 63 MB for one another": Case(
        "x.tgz",
        lambda: hostile.tar(*((f"x/data_batch_{number}", bytes(63_000_000)) for number in range(1, 6))),
        315e6,
        read_official,
        limit=700,
        slow=True,
    ),
    "tar.gz: PNG of 900 megapixels": Case(
        "x.tgz", lambda: hostile.tar(("train/cat/1.png", hostile.png())), 30_000**2, read_pngs
    ),
    "tar.gz: PNG with text of 1 GB": Case(
        "x.tgz",
        lambda: hostile.tar(("train/cat/1.png", hostile.png_with_text(GIGABYTE))),
        GIGABYTE,
        read_pngs,
        slow=True,
    ),
    "gzip of a gzip": Case("x.tgz", lambda: hostile.zeros(10_000_000, b"\x1f\x8b"), 1e7, read_official),
    **{
        f"pickle: {name}": Case("data_batch_1", lambda content=content: content, hostile.HUGE, read_batches)
        for name, content in hostile.PICKLES.items()
    },
    "parquet: page of 400 MB, hidden by the footer": Case(
        "x.parquet", lambda: hostile.large_page(400_000_000), 4e8, read_tables, slow=True
    ),
    "parquet: page that claims 2 GB": Case("x.parquet", hostile.claimed_page, 2**31, read_tables),
    "parquet: one value of 7 MB in many rows": Case(
        "x.parquet", lambda: hostile.repeated(7_000_000, 60), 60 * 7e6, read_tables, limit=500
    ),
    "parquet: long texts as labels": Case("x.parquet", lambda: hostile.texts_as_labels(900_000, 60), 54e6, read_tables),
    "parquet: footer of 2 GB": Case("x.parquet", lambda: hostile.large_footer(2**31 - 1), 2**31, read_tables),
    "parquet: footer of 4 MB of zeros": Case(
        "x.parquet",
        lambda: b"PAR1" + bytes(4_000_000) + (4_000_000).to_bytes(4, "little") + b"PAR1",
        4e6,
        read_tables,
    ),
    "safetensors: header of 2**62 bytes": Case(
        "x.safetensors", lambda: hostile.safetensors({}, 2**62), 2.0**62, checkpoint.load
    ),
    "safetensors: tensor of 4 TB": Case("x.safetensors", lambda: hostile.safetensors(TENSOR), 2.0**42, checkpoint.load),
    "safetensors: tensor of 4 TB in the cache": Case(
        "cifar10.safetensors", lambda: hostile.safetensors(TENSOR), 2.0**42, read_cache
    ),
    "safetensors: config of a lenet for 8192 x 8192 pixels": Case(
        "x.safetensors", lambda: with_config(image_size=8192), 32 * GIGABYTE, checkpoint.load
    ),
    "safetensors: config of a convnet-x1000": Case(
        "x.safetensors", lambda: with_config(arch="convnet-x1000"), 500 * GIGABYTE, checkpoint.load
    ),
    "safetensors: config of 100,000 classes": Case(
        "x.safetensors", lambda: with_config(classes=100_000), 100_000 * 84 * 4, checkpoint.load
    ),
    "safetensors: packed layer of 2**31 weights": Case(
        "x.safetensors", lambda: packed([2**31]), 2.0**33, checkpoint.load
    ),
    "safetensors: zip archive of 1 GB": Case(
        "x.safetensors", lambda: hostile.zipped("data.pkl", GIGABYTE), GIGABYTE, checkpoint.load, slow=True
    ),
    "npy: 10**12 rows": Case("x.npy", lambda: hostile.npy((10**12,)), 4e13, read_history),
    "npy: negative size": Case("x.npy", lambda: hostile.npy((-5,)), 0, read_history),
    "npz: 1 GB of zeros": Case("x.npy", lambda: hostile.zipped("x.npy", GIGABYTE), GIGABYTE, read_history, slow=True),
    "PNG of 900 megapixels": Case("x.png", hostile.png, 30_000**2, pictures.read_picture),
    "PNG with text of 1 GB": Case(
        "x.png", lambda: hostile.png_with_text(GIGABYTE), GIGABYTE, pictures.read_picture, slow=True
    ),
    "BMP of 3,600 megapixels": Case("x.bmp", hostile.bmp, 3 * 60_000**2, pictures.read_picture),
    "GIF of 4,294 megapixels": Case("x.gif", hostile.gif, 65_535**2, pictures.read_picture),
    "TIFF of 10,000 megapixels": Case("x.tif", hostile.tiff, 100_000**2, pictures.read_picture),
    "TIFF of 49 megapixels without pixels": Case(
        "x.tif", lambda: hostile.tiff(7000), 7000**2, pictures.read_picture, limit=300
    ),
    "WebP of 268 megapixels": Case("x.webp", hostile.webp, 16_383**2 * 4, pictures.read_picture),
    "JPEG of 400 megapixels": Case(
        "x.jpg", lambda: hostile.saved(20_000, "JPEG"), 20_000**2, pictures.read_picture, slow=True
    ),
    "PNG of 50 megapixels with transparency, which is accepted": Case(
        "x.png",
        lambda: hostile.saved(7090, "PNG", "RGBA"),
        4 * 7090**2,
        read_small,
        limit=1000,
        slow=True,
        refused=False,
    ),
    "ONNX: a tensor of 400 GB": Case("x.onnx", lambda: onnx_of_constant(10**11), 4e11, read_onnx, limit=200, slow=True),
}


def measure(title, path, pipe):
    """Open a file in a process that was forked; send the memory in MB, the seconds, and what was said."""
    import resource  # Windows has no such module

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ALLOWED, size + ALLOWED))
    began = time.perf_counter()
    try:
        CASES[title].read(path)
        refused, said = False, "accepted"
    except CourseError as error:
        refused, said = True, str(error)
    except BaseException as error:  # what no reader of the course should raise
        refused, said = None, f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - began
    pipe.send(((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000, seconds, refused, said))


def opened(title, folder):
    """Make the file of a case and open it in a process of its own; return a row of the table."""
    case = CASES[title]
    folder.mkdir(parents=True)
    path = folder / case.name
    path.write_bytes(case.make())
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.memory"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(title, path, sender))
    process.start()
    sender.close()
    try:
        memory, seconds, refused, said = receiver.recv()
    except EOFError:
        process.join()
        memory, seconds, refused, said = float("inf"), 0.0, None, f"the process ended with {process.exitcode}"
    process.join()
    said = said.replace(f"{folder}/", "")
    return {
        "kB": path.stat().st_size / 1e3,
        "claims MB": case.claims / 1e6,
        "MB": memory,
        "s": seconds,
        "refused": refused,
        "says": said,
    }


@click.command()
def main():
    """Print how much memory each hostile file takes."""
    with tempfile.TemporaryDirectory() as folder:
        print("| file | kB | claims MB | takes MB | seconds | says |", "|---|---|---|---|---|---|", sep="\n")
        for number, title in enumerate(CASES):
            row = opened(title, Path(folder) / str(number))
            numbers = f"{row['kB']:,.1f} | {row['claims MB']:,.0f} | {row['MB']:,.0f} | {row['s']:.2f}"
            print(f"| {title} | {numbers} | {row['says'][:150]} |", flush=True)
