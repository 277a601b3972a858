"""Build a page on which three low-bit nets run in a browser: C compiled to WebAssembly, in a single HTML file."""

import base64
import http.server
import json
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from torch import nn

from ..common.errors import CourseError
from ..common.files import as_path, write_atomically
from ..nets.architectures import spec_of
from ..results.recorded import recorded_history, recorded_net
from . import c

NETS = ("XnorNN", "BinaryNN", "TernaryNN")
COMPILER, LINKER = "clang", "wasm-ld"
EVERYWHERE = ("0.0.0.0", "")  # noqa: S104, what the user can ask for
ELSEWHERE = ("192.0.2.1", 9)  # an address that belongs to nobody (RFC 5737)
TEMPLATE = Path(__file__).with_name("demo.html")
PLACE = "/*COURSE*/null"
OPTIONS = ("--target=wasm32", "-std=c99", "-O2", "-msimd128", "-nostdlib", "-Wl,--no-entry", "-Wl,--strip-all")
EXPORTS = ("image_bytes", "score_values", "run", "weight_bits", "flip")
# What the page calls. Weights are not constant here, so that the page can flip their bits. The first layer of a convnet
# is left out: its filters are fixed and not quantized.
WRAPPER = """
#define STORED static
#include "net.c"

typedef __SIZE_TYPE__ size_t;
static uint8_t image[COLOURS * HEIGHT * WIDTH];
static float scores[CLASSES];
static uint8_t *const PLACES[] = {{{places}}};
static const int SIZES[] = {{{sizes}}};

/* Compilers turn some loops into calls of these two. */
void *memset(void *to, int byte, size_t count)
{{
    for (volatile uint8_t *place = to; count--;)
        *place++ = (uint8_t)byte;
    return to;
}}

void *memcpy(void *to, const void *from, size_t count)
{{
    volatile uint8_t *place = to;
    for (const uint8_t *byte = from; count--;)
        *place++ = *byte++;
    return to;
}}

uint8_t *image_bytes(void) {{ return image; }}
float *score_values(void) {{ return scores; }}
void run(void) {{ net_scores(image, scores); }}

int weight_bits(void)
{{
    int bytes = 0;
    for (int i = 0; i < {count}; i++)
        bytes += SIZES[i];
    return 8 * bytes;
}}

void flip(int bit)
{{
    int byte = bit / 8, i = 0;
    while (byte >= SIZES[i])
        byte -= SIZES[i++];
    PLACES[i][byte] ^= (uint8_t)(1 << bit % 8);
}}
"""


def missing() -> list[str]:
    """List the programs that are needed to compile C to WebAssembly and that are not installed."""
    return [name for name in (COMPILER, LINKER) if shutil.which(name) is None]


def build(path: str | Path, arch: str = "convnet", names: Sequence[str] = NETS) -> Path:
    """Write the page: one HTML file that needs no network and opens from the disk.

    Args:
        path: The HTML file to write.
        arch: The architecture of the nets.
        names: The recorded nets that the page shows.

    Returns:
        The path.

    Raises:
        CourseError: If a compiler for WebAssembly is missing, if a net is not recorded or cannot be written in C, or if
            `path` cannot be written.
    """
    path = as_path("path", path)
    nets = [recorded_net(name, arch) for name in names]
    about = [_about(net, compile_net(net), arch) for net in nets]
    accuracy = recorded_history("PytorchNN", arch).test_acc
    course = {
        "classes": nets[0].class_names,
        "nets": about,
        "float": f"The float net of the same size is not on this page: it takes 32 bits per weight, and its recorded "
        f"accuracy on CIFAR-10 is {accuracy:.1%}.",
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace(PLACE, json.dumps(course).replace("<", "\\u003c"))
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
    return path


def compile_net(net: nn.Module) -> bytes:
    """Return `net` as a WebAssembly program that exports the functions in `EXPORTS`.

    Raises:
        CourseError: If a compiler for WebAssembly is missing, or if the net cannot be written in C.
    """
    if missing():
        raise CourseError(
            f"Not installed: {', '.join(missing())}. On Debian and Ubuntu, run `apt-get install clang lld`."
        )
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        source = c.export_c(net, folder / "net.c").read_text(encoding="utf-8")
        names = re.findall(r"STORED \w+ (WEIGHTS_\d+)\[", source)
        names = [name for name in names if not ("stem(&LAYER_0" in source and name == "WEIGHTS_0")]
        wrapper = WRAPPER.format(
            places=", ".join(f"(uint8_t *){name}" for name in names),
            sizes=", ".join(f"sizeof {name}" for name in names),
            count=len(names),
        )
        (folder / "page.c").write_text(wrapper, encoding="utf-8")
        exports = [f"-Wl,--export={name}" for name in EXPORTS]
        command = [COMPILER, *OPTIONS, *exports, "page.c", "-o", "net.wasm"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise CourseError(f"{' '.join(command)} fails: {done.stderr.strip()}")
        return (folder / "net.wasm").read_bytes()


def _about(net: nn.Module, program: bytes, arch: str) -> dict:
    spec = spec_of(net)
    return {
        "name": spec.name,
        "bits": spec.bits,
        "bytes": len(program),
        "accuracy": f"{recorded_history(spec.name, arch).test_acc:.1%}",
        "program": base64.b64encode(program).decode(),
    }


def reachable(address: str) -> str:
    """Return the address under which other computers and phones find a server that listens on `address`.

    "0.0.0.0" stands for all addresses of this computer, and no other device can open it. Of these, the one that leads
    to the local network is returned or, without a network, "127.0.0.1".
    """
    if address not in EVERYWHERE:
        return address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(ELSEWHERE)  # chooses a network, but sends nothing
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]


def serve(path: Path, address: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve the folder of a page until the user interrupts it.

    Args:
        path: The page.
        address: The address to listen on. By default, only this computer can open the page; "0.0.0.0" lets a whole
            room open it.
        port: The port.

    Raises:
        CourseError: If the address cannot be used.
    """
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(path.parent))
    try:
        server = http.server.ThreadingHTTPServer((address, port), handler)
    except OSError as error:
        raise CourseError(f"Cannot listen on {address}:{port} ({error.strerror}): choose another --port.") from error
    with server:
        host = reachable(address)
        print(f"Open http://{host}:{server.server_port}/{quote(path.name)}; press Ctrl-C to stop.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")
