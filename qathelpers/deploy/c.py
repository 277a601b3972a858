"""Write a net as one C99 file: no library, no memory allocation, packed weights, bytes in and scores out."""

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from ..common.errors import CourseError, check_type
from ..common.files import as_path, check_readable, write_atomically
from ..data.batches import STATISTICS, whitening_filter
from ..nets import weights
from ..nets.architectures import spec_of
from . import c_layers, conversion

LAYERS = Path(__file__).with_name("layers.c")  # the functions that all programs share
SECTION = re.compile(r"/\* --- (\w+) --- \*/\n")
IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
COMPILERS = ("cc", "gcc", "clang")
OPTIONS = ("-std=c99", "-O3")
NATIVE = "-march=native"  # all instructions of this computer's processor
HEAD = """/* {title}

   {source}

   void {name}_scores(const uint8_t *image, float *scores);   writes {classes} scores; the largest one is the answer
   int {name}_class(const uint8_t *image);                    returns the answer

   An image has {count} bytes from 0 to 255: all {height} x {width} values of each colour, row by row{colours}.
   {answers}

   Compile with: cc -std=c99 -O3 -march=native -c FILE, or with -D{upper}_MAIN for a program that reads raw images. */
#include <stdint.h>

#ifndef STORED /* where weights are stored; `static` allows a program to change them */
#define STORED static const
#endif

#define COLOURS {channels}
#define HEIGHT {height}
#define WIDTH {width}
#define CLASSES {classes}
{most}

void {name}_scores(const uint8_t *image, float *scores);
int {name}_class(const uint8_t *image);
"""
SIGNS = """typedef uint32_t Value; /* 32 signs: a bit is 1 for +1 and 0 for -1 */
#define VALUES(channels) (((channels) + 31) / 32)
"""
FLOATS = """typedef float Value;
#define VALUES(channels) (channels)
"""


def export_c(net: nn.Module, path: str | Path, name: str = "net", classes: Sequence[str] | None = None) -> Path:
    """Write `net` as one C99 file that needs nothing else: images as bytes go in, scores come out.

    The file has the functions NAME_scores and NAME_class and, if NAME_MAIN is defined, a program that reads raw images
    and prints the class and the scores of each. If a C compiler is installed, it compiles the program, and the scores
    of a random batch are compared with the logits of the net (`conversion.check`).

    Args:
        net: A ConvNet or LeNet with binary or ternary weights, and with floats or signs as activations.
        path: The file to write.
        name: What the names of the functions start with.
        classes: The names of the classes, for the comment at the start; by default those of the data set that a
            recorded net was trained on.

    Returns:
        The path.

    Raises:
        CourseError: If the net cannot be written (the message names the layer), if the program's scores differ from the
            net's logits, or if `path` cannot be written.
    """
    if not isinstance(name, str) or not IDENTIFIER.fullmatch(name):
        raise CourseError(f"{name!r} cannot start the name of a C function: use letters, digits and _.")
    weights.check_net(net)
    path, net, shape = as_path("path", path), conversion.on_cpu(net), spec_of(net).image
    program = c_layers.program_of(net, shape)
    outputs = conversion.check_shape(net, shape)
    text = _text(net, program, name, conversion.class_names(net, classes, outputs), outputs)

    def write(file: Path) -> None:
        file.write_text(text, encoding="utf-8")
        if compiler():
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder) / "net.c"
                source.write_text(text, encoding="utf-8")
                run = lambda images: run_c(source, images, name)  # noqa: E731
                conversion.check_bytes(net, run, shape, "C", conversion.may_flip(net), c_layers.REMEDY)

    write_atomically(path, write)
    return path


def compiler() -> str | None:
    """Return the path of a C compiler that is installed, or None."""
    return next((found for name in COMPILERS if (found := shutil.which(name)) and _runs(found)), None)


def _runs(command: str) -> bool:
    """Return whether a compiler can be run: on a Mac without developer tools, cc only says how to install them."""
    try:
        return subprocess.run([command, "--version"], capture_output=True).returncode == 0  # noqa: S603
    except OSError:
        return False


def run_c(
    path: str | Path, images: torch.Tensor, name: str = "net", options: Sequence[str] = OPTIONS, command: str = ""
) -> torch.Tensor:
    """Compile a file that `export_c` wrote, and return the scores (n, classes) of uint8 images (n, channels, h, w).

    Args:
        path: The C file.
        images: The images.
        name: The `name` that the file was written with.
        options: The options of the compiler.
        command: The compiler; by default the first of cc, gcc and clang that is installed.

    Raises:
        CourseError: If no compiler is installed, if it fails, or if the images are not uint8.
    """
    command = command or _compiler_or_refuse()
    _check_bytes(images)
    path = as_path("path", path)
    check_readable(path, "a C file", "write it with export_c first")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "net"
        compiling = [command, *options, f"-D{name.upper()}_MAIN", str(path), "-o", str(program)]
        done = subprocess.run(compiling, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise CourseError(f"{' '.join(compiling)} fails: {done.stderr.strip()}")
        done = subprocess.run([str(program)], input=images.contiguous().numpy().tobytes(), capture_output=True)  # noqa: S603
        if done.returncode:
            raise CourseError(f"The C program fails: {done.stderr.decode(errors='replace').strip()}")
    rows = [list(map(float, line.split()[1:])) for line in done.stdout.decode().splitlines()]
    return torch.tensor(rows)


def build_library(path: str | Path, library: str | Path) -> Path:
    """Compile a file that `export_c` wrote to a shared library, for the processor of this computer.

    Args:
        path: The C file.
        library: The library to write.

    Returns:
        The path of the library.

    Raises:
        CourseError: If no compiler is installed, or if it fails.
    """
    command = _compiler_or_refuse()
    path, library = as_path("path", path), as_path("library", library)
    check_readable(path, "a C file", "write it with export_c first")
    for native in ((NATIVE,), ()):  # some compilers do not know this option
        compiling = [command, *OPTIONS, *native, "-shared", "-fPIC", str(path), "-o", str(library)]
        done = subprocess.run(compiling, capture_output=True, text=True)  # noqa: S603
        if not done.returncode:
            return library
    raise CourseError(f"{' '.join(compiling)} fails: {done.stderr.strip()}")


def load_library(
    library: str | Path, name: str = "net", classes: int = 10, shape: tuple[int, int, int] = (3, 32, 32)
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load a library of `build_library`; return a function from uint8 images (n, channels, h, w) to scores.

    The program has static arrays, so the function computes one image after the other, in one thread.

    Args:
        library: The library.
        name: The `name` that the C file was written with.
        classes: The number of scores per image.
        shape: The shape of one image (channels, height, width); images of another shape raise a CourseError.

    Raises:
        CourseError: If there is no such library, or if it is for another system or has no such function.
    """
    library = as_path("library", library)
    check_readable(library, "a library", "compile one with build_library first")
    # The system would look for a name without a folder among its own libraries.
    try:
        compute = getattr(ctypes.CDLL(str(library.absolute())), f"{name}_scores")
    except (OSError, AttributeError) as error:
        raise CourseError(f"{library} cannot be used ({error}): compile it again with build_library.") from error
    compute.argtypes, compute.restype = (ctypes.c_void_p, ctypes.c_void_p), None

    def run(images: torch.Tensor) -> torch.Tensor:
        _check_bytes(images)
        if tuple(images.shape[1:]) != shape:  # the program would read beyond the image
            raise CourseError(f"The program takes images of the shape {shape}, but these have {tuple(images.shape)}.")
        images, scores = images.cpu().contiguous(), torch.empty(len(images), classes)
        for i in range(len(images)):
            compute(images[i].data_ptr(), scores[i].data_ptr())
        return scores

    return run


def popcount_source() -> str:
    """Return the C function that counts the bits of three words in each program of a net with binary activations."""
    section = _functions({"signs"}, "net")["signs"]
    return section[: section.index("\n}\n") + 3]


def _compiler_or_refuse() -> str:
    command = compiler()
    if command is None:
        raise CourseError(f"No C compiler is installed: install one of {', '.join(COMPILERS)}.")
    return command


def _check_bytes(images: torch.Tensor) -> None:
    check_type("images", images, torch.Tensor, "uint8 images, such as dataset.test_images")
    if images.dtype != torch.uint8:
        raise CourseError(f"The program takes bytes, but the images are {images.dtype}: pass uint8 images.")


def _text(net: nn.Module, program: c_layers.Program, name: str, classes: tuple[str, ...] | None, outputs: int) -> str:
    """Return the C file: constants, weights, the functions that the program needs, and the calls."""
    (channels, height, width), spec = program.image, spec_of(net)
    mean, std = (torch.tensor(values, dtype=torch.float64) * 255 for values in STATISTICS[channels])
    kernel = whitening_filter(channels=channels).double() / std.view(1, -1, 1, 1)  # (out, in, 3, 3)
    constants = c_layers.Program(program.image, program.has_signs)
    constants.add_array("float", "MEAN", mean.float().numpy())
    constants.add_array("float", "FILTER", kernel.permute(2, 3, 1, 0).flatten().float().numpy())
    head = HEAD.format(
        title=_comment(f"{spec.name} ({spec.arch}), {spec.bits}")
        + f": a neural network for images of {height} x {width} pixels.",
        source="Written by the course's `export_c`; no preparation of weights or images is needed.",
        name=name,
        upper=name.upper(),
        classes=outputs,
        channels=channels,
        height=height,
        width=width,
        count=channels * height * width,
        colours=", first red, then green, then blue" if channels > 1 else "",
        answers=f"The classes, from 0: {_comment(', '.join(classes))}."
        if classes
        else "The classes are numbered from 0.",
        most="\n".join(f"#define {title} {count}" for title, count in _counts(program).items()),
    )
    calls = ["normalize(image);", *program.calls]
    body = "\n".join(f"    {call}" for call in calls)
    scores = (
        f"/* The net, layer by layer. */\nvoid {name}_scores(const uint8_t *image, float *scores)\n{{\n{body}\n"
        "    for (int i = 0; i < CLASSES; i++)\n        scores[i] = features[i];\n}\n"
    )
    functions = _functions(program.sections, name)
    main = functions.pop("main")
    parts = [head, SIGNS if program.has_signs else FLOATS, *constants.arrays, *functions.values()]
    return "\n".join([*parts, *program.arrays, "", scores, main])


def _counts(program: c_layers.Program) -> dict[str, int]:
    """Return the constants of the program that depend on its layers."""
    most = {f"MOST_{title}": count for title, count in sorted(program.most.items())}
    return {"FILTERS": program.filters, **most} if program.filters else most


def _comment(text: str) -> str:
    """Return `text` on one line and without the marks that start or end a comment in C."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return line.replace("*/", "* /").replace("/*", "/ *")


def _functions(sections: set[str], name: str) -> dict[str, str]:
    """Return the chosen sections of layers.c, in its order."""
    _, *parts = SECTION.split(LAYERS.read_text(encoding="utf-8"))
    texts = dict(zip(parts[::2], parts[1::2], strict=True))
    texts = {title: text for title, text in texts.items() if title in sections}
    return {title: text.replace("PREFIX", name.upper()).replace("prefix", name) for title, text in texts.items()}
