"""Download CIFAR-10 from the first mirror that works."""

import contextlib
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import URLError

from ..common.errors import NO_MEMORY, CourseError, is_out_of_memory
from ..common.progress import progress
from . import readers

TIMEOUT = 10.0  # seconds without an answer or without new data
ANSWER = 30.0  # seconds until a server has sent all headers, redirections included
MAX_BYTES = 400_000_000  # of one file; the official archive has 170 MB
WINDOW = 30.0  # seconds over which the rate of a mirror is measured
MIN_RATE = 20_000  # bytes per second; slower mirrors are given up (the official host delivers about 50,000)


@dataclass(frozen=True)
class Mirror:
    """A website that offers CIFAR-10.

    Args:
        name: Its name in messages.
        urls: The addresses of its files.
        read: Reads the downloaded files, given in the order of `urls`.
    """

    name: str
    urls: tuple[str, ...]
    read: Callable[[list[Path]], readers.Arrays]


_HUGGING_FACE = "https://huggingface.co/datasets/uoft-cs/cifar10/resolve/main/plain_text"

# Fast mirrors first: a download from the official host has taken about an hour since June 2026 (pytorch/vision issue
# 9536).
MIRRORS = [
    Mirror("fast.ai", ("https://s3.amazonaws.com/fast-ai-imageclas/cifar10.tgz",), readers.read_png_archive),
    Mirror(
        "Hugging Face",
        tuple(f"{_HUGGING_FACE}/{split}-00000-of-00001.parquet" for split in ("train", "test")),
        readers.read_parquets,
    ),
    Mirror(
        "the official host",
        ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
        readers.read_official_archive,
    ),
]


class NotAvailable(Exception):
    """All mirrors failed; the message gives the reason for each one."""


def fetch(verify: Callable[[readers.Arrays, str], None]) -> readers.Arrays:
    """Download CIFAR-10 from the first of `MIRRORS` that works and whose content `verify` accepts.

    Args:
        verify: Called with the arrays and a description of their source; raises an exception to reject them.

    Raises:
        NotAvailable: If all mirrors fail.
    """
    failures = []
    for mirror in MIRRORS:
        try:
            with tempfile.TemporaryDirectory() as folder:
                files = [_download(url, Path(folder), mirror.name) for url in mirror.urls]
                arrays = mirror.read(files)
            verify(arrays, f"the copy from {mirror.name}")
        except Exception as error:  # whatever is wrong with this mirror, the next one may work
            reason = _reason(error)
            failures.append(f"{mirror.name}: {reason}")
            print(f"CIFAR-10 from {mirror.name}: {reason}")
        else:
            return arrays
    raise NotAvailable("all mirrors failed (" + "; ".join(failures) + ")")


def _reason(error: Exception) -> str:
    """Return in one line why a mirror failed."""
    if is_out_of_memory(error):
        return NO_MEMORY.rstrip(".")
    error = error.reason if type(error) is URLError else error
    text = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
    if isinstance(error, CourseError | OSError | str):
        return text
    return f"the file is not what this mirror is known for ({type(error).__name__}: {text})"


def _download(url: str, folder: Path, title: str) -> Path:
    """Download `url` into `folder` and return the file.

    Raises:
        OSError: If the server does not answer, or the download stalls.
        CourseError: If the file is incomplete or too large.
    """
    path = folder / url.rsplit("/", 1)[1]
    response = _open(url)
    with contextlib.closing(response), open(path, "wb") as file:
        length = response.headers.get("Content-Length") or ""
        size = int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else 0
        if size > MAX_BYTES:
            raise CourseError(f"the file has {size:,} bytes, more than any copy of CIFAR-10")
        with progress(title=f"CIFAR-10 from {title}", total=size or None, unit="B") as bar:
            _copy(response, file, bar.update)
    if size and path.stat().st_size != size:
        raise CourseError(f"the download ended after {path.stat().st_size:,} of {size:,} bytes")
    return path


def _open(url: str) -> HTTPResponse:
    """Open `url` and return the response, when all of its headers are there.

    The timeout of a socket starts again with each byte, so a server that sends its headers byte by byte would be waited
    for without end. The thread that waits for it ends with the process at the latest.
    """
    result = []

    def open_and_keep() -> None:
        request = urllib.request.Request(url, headers={"User-Agent": "qathelpers"})  # noqa: S310, all MIRRORS use https
        try:
            result.append(_opener().open(request, timeout=TIMEOUT))
        except Exception as error:  # raised below, in the thread that asked
            result.append(error)

    thread = threading.Thread(target=open_and_keep, daemon=True)
    thread.start()
    thread.join(ANSWER)
    if not result:
        raise TimeoutError(f"the server did not answer completely within {ANSWER:.0f} seconds")
    if isinstance(result[0], Exception):
        raise result[0]
    return result[0]


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens HTTP addresses, through the proxy that the environment names now.

    urllib's own `urlopen` keeps the proxies of its first call, and follows redirections to other protocols.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _copy(response: HTTPResponse, file: BinaryIO, advance: Callable[[int], object]) -> None:
    start, received = time.monotonic(), 0
    while chunk := response.read1(1 << 16):
        file.write(chunk)
        advance(len(chunk))
        received += len(chunk)
        if file.tell() > MAX_BYTES:
            raise CourseError(f"the file has more than {MAX_BYTES:,} bytes, more than any copy of CIFAR-10")
        seconds = time.monotonic() - start
        if seconds > WINDOW:
            if received / seconds < MIN_RATE:
                raise TimeoutError(f"the download stalled at {received / seconds:,.0f} bytes per second")
            start, received = time.monotonic(), 0
