"""Download CIFAR-10 from the first mirror that delivers."""

import contextlib
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

from tqdm.auto import tqdm

from . import readers
from .errors import CourseError

TIMEOUT = 10.0  # seconds without an answer, or without a byte
WINDOW = 30.0  # seconds over which a mirror must keep up
MIN_RATE = 20_000  # bytes a second; the throttled official host gives about 50,000


@dataclass(frozen=True)
class Mirror:
    """A place that has CIFAR-10: the addresses of its files, and the function that reads them."""

    name: str
    urls: tuple[str, ...]
    read: Callable[[list[Path]], readers.Arrays]


_HUGGING_FACE = "https://huggingface.co/datasets/uoft-cs/cifar10/resolve/main/plain_text"

# The fast ones first: the official host needs about an hour since June 2026 (pytorch/vision issue 9536).
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
    """No mirror delivered; the message says what each one answered."""


def fetch(verify: Callable[[readers.Arrays, str], None]) -> readers.Arrays:
    """Return CIFAR-10 from the first of `MIRRORS` whose content `verify` accepts.

    Raises NotAvailable when none delivers.
    """
    answers = []
    for mirror in MIRRORS:
        try:
            with tempfile.TemporaryDirectory() as folder:
                files = [_download(url, Path(folder), mirror.name) for url in mirror.urls]
                arrays = mirror.read(files)
            verify(arrays, f"the copy from {mirror.name}")
        except Exception as error:  # whatever is wrong with one mirror, the next one may do
            reason = error.reason if type(error) is URLError else error
            answers.append(f"{mirror.name}: {reason}")
            print(f"CIFAR-10 from {mirror.name}: {reason}")
        else:
            return arrays
    raise NotAvailable("no mirror delivered (" + "; ".join(answers) + ")")


def _download(url: str, folder: Path, title: str) -> Path:
    """Download `url` into `folder` with a progress bar; raises OSError or CourseError when it fails or stalls."""
    path = folder / url.rsplit("/", 1)[1]
    request = urllib.request.Request(url, headers={"User-Agent": "qathelpers"})
    with contextlib.closing(urllib.request.urlopen(request, timeout=TIMEOUT)) as response, open(path, "wb") as file:
        size = int(response.headers.get("Content-Length") or 0)
        with tqdm(total=size or None, unit="B", unit_scale=True, desc=f"CIFAR-10 from {title}") as bar:
            _copy(response, file, bar)
    if size and path.stat().st_size != size:
        raise CourseError(f"it broke off after {path.stat().st_size:,} of {size:,} bytes")
    return path


def _copy(response, file, bar: tqdm) -> None:
    start, received = time.monotonic(), 0
    while chunk := response.read1(1 << 16):
        file.write(chunk)
        bar.update(len(chunk))
        received += len(chunk)
        seconds = time.monotonic() - start
        if seconds > WINDOW:
            if received / seconds < MIN_RATE:
                raise TimeoutError(f"it stalled at {received / seconds:,.0f} bytes a second")
            start, received = time.monotonic(), 0
