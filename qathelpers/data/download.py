"""Download CIFAR-10 from the first mirror that works."""

import contextlib
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import URLError

from ..common.errors import CourseError
from ..common.progress import progress
from . import readers

TIMEOUT = 10.0  # seconds without an answer or without new data
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
            reason = error.reason if type(error) is URLError else error
            failures.append(f"{mirror.name}: {reason}")
            print(f"CIFAR-10 from {mirror.name}: {reason}")
        else:
            return arrays
    raise NotAvailable("all mirrors failed (" + "; ".join(failures) + ")")


def _download(url: str, folder: Path, title: str) -> Path:
    """Download `url` into `folder` and return the file.

    Raises:
        OSError: If the server does not answer, or the download stalls.
        CourseError: If the file is incomplete.
    """
    path = folder / url.rsplit("/", 1)[1]
    request = urllib.request.Request(url, headers={"User-Agent": "qathelpers"})  # noqa: S310, all MIRRORS use https
    response = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    with contextlib.closing(response), open(path, "wb") as file:
        size = int(response.headers.get("Content-Length") or 0)
        with progress(title=f"CIFAR-10 from {title}", total=size or None, unit="B") as bar:
            _copy(response, file, bar.update)
    if size and path.stat().st_size != size:
        raise CourseError(f"the download ended after {path.stat().st_size:,} of {size:,} bytes")
    return path


def _copy(response: HTTPResponse, file: BinaryIO, advance: Callable[[int], object]) -> None:
    start, received = time.monotonic(), 0
    while chunk := response.read1(1 << 16):
        file.write(chunk)
        advance(len(chunk))
        received += len(chunk)
        seconds = time.monotonic() - start
        if seconds > WINDOW:
            if received / seconds < MIN_RATE:
                raise TimeoutError(f"the download stalled at {received / seconds:,.0f} bytes per second")
            start, received = time.monotonic(), 0
