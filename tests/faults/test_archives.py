"""Hostile and damaged copies of CIFAR-10: each is refused before it fills the memory, and a good mirror is used."""

import gzip
import io
import pickle
import socket
import struct
import tarfile
import threading
import time
import zlib

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from qathelpers.common.errors import CourseError
from qathelpers.data import cifar10, download, readers

LIMIT = 3_000_000  # bytes that an archive may unpack to in these tests


def tar(*files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def large_header():
    """Return an archive whose pax header claims, and has, more bytes than all of CIFAR-10."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2 * LIMIT
    return gzip.compress(info.tobuf() + bytes(2 * LIMIT))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def large_png(side=30_000):
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def nested(depth=3, width=60):
    labels = [0] * width
    for _ in range(depth):
        labels = [labels] * width
    return pickle.dumps({"data": 0, "labels": labels}, 2)


ARCHIVES = {
    "a file of a batch that is too large": (readers.read_official_archive, tar(("x/data_batch_1", bytes(LIMIT + 1)))),
    "a header that is too large": (readers.read_official_archive, large_header()),
    "a header that is too large, of pictures": (readers.read_png_archive, large_header()),
    "many small files": (readers.read_official_archive, tar(*((f"x/{i}", bytes(200_000)) for i in range(20)))),
    "a picture of 900 megapixels": (readers.read_png_archive, tar(("train/cat/1.png", large_png()))),
    "an empty file": (readers.read_official_archive, b""),
    "a web page": (readers.read_png_archive, b"<html>sorry</html>"),
    "half an archive": (readers.read_official_archive, tar(("x/data_batch_1", bytes(9000)))[:-20]),
    "an archive without the files": (readers.read_official_archive, tar(("x/readme", b"hello"))),
    "a table of another program": (
        lambda files: readers.read_parquets([*files, *files]),
        b"PAR1" + bytes(50) + b"PAR1",
    ),
}


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(readers, "MAX_UNPACKED", LIMIT)
    monkeypatch.setattr(readers, "MAX_BYTES", LIMIT)


@pytest.mark.parametrize(("read", "content"), ARCHIVES.values(), ids=ARCHIVES)
def test_a_hostile_archive_is_refused(small_limits, tmp_path, read, content):
    path = tmp_path / "cifar10.tgz"
    path.write_bytes(content)
    with pytest.raises(CourseError):
        read([path])
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_with_too_many_rows_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_IMAGES", 5)
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"img": [{"bytes": b"x"}] * 6, "label": [0] * 6}), path)
    with pytest.raises(CourseError, match=r"train\.parquet has 6 rows"):
        readers.read_parquets([path, path])


HUGE = 2**31 - 1
PICKLES = {
    "nested lists as labels": nested(),
    "a number that takes 16 GB": b"\x80\x02}r" + struct.pack("<I", HUGE) + b".",
    "the same as text": b"\x80\x02}p" + str(HUGE).encode() + b"\n.",
    "bytes that are not there": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "text that is not there": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",
    "nothing": b"",
}


@pytest.mark.parametrize("content", PICKLES.values(), ids=PICKLES)
def test_a_hostile_pickle_is_refused_at_once(content):
    start = time.monotonic()
    with pytest.raises(CourseError, match=r"data_batch_1 of x\b"):
        readers.read_batches(lambda name: content, "x")
    assert time.monotonic() - start < 5


def test_a_file_of_the_users_copy_that_is_too_large_or_a_pipe_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_BYTES", 1000)
    (tmp_path / "data_batch_1").write_bytes(bytes(1001))
    with pytest.raises(CourseError, match="data_batch_1"):
        readers.read_folder(tmp_path)


@pytest.fixture
def serve():
    """Return a function that starts a server, which calls `answer(connection)`, and returns its address."""
    sockets = []

    def serve(answer):
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def accept():
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/cifar10.tgz"

    yield serve
    for server in sockets:
        server.close()


def send(connection, start, again=b"", pause=0.0):
    try:
        connection.recv(1000)
        connection.sendall(start)
        while again:
            connection.sendall(again)
            time.sleep(pause)
        connection.close()
    except OSError:
        pass


OK = b"HTTP/1.0 200 OK\r\n"
ANSWERS = {
    "headers byte by byte": (OK, b"a", 0.05),
    "headers without end": (OK, b"X-A: b\r\n" * 50, 0.01),
    "a body without end": (OK + b"\r\n", bytes(100_000), 0.0),
    "a size of petabytes": (OK + b"Content-Length: 9999999999999999\r\n\r\n", b"", 0.0),
    "a size that is no number": (OK + b"Content-Length: many\r\n\r\n<html>", b"", 0.0),
    "a redirection to a file": (b"HTTP/1.0 302 x\r\nLocation: file:///etc/passwd\r\n\r\n", b"", 0.0),
    "a redirection to FTP": (b"HTTP/1.0 302 x\r\nLocation: ftp://127.0.0.1/x\r\n\r\n", b"", 0.0),
    "a redirection to itself": (b"HTTP/1.0 302 x\r\nLocation: /cifar10.tgz\r\n\r\n", b"", 0.0),
    "no HTTP": (b"220 mail\r\n", b"", 0.0),
}


@pytest.mark.parametrize(("start", "again", "pause"), ANSWERS.values(), ids=ANSWERS)
def test_a_hostile_server_is_given_up(serve, monkeypatch, capsys, start, again, pause):
    monkeypatch.setattr(download, "ANSWER", 0.5)
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    monkeypatch.setattr(download, "MAX_BYTES", 1_000_000)
    url = serve(lambda connection: send(connection, start, again, pause))
    monkeypatch.setattr(download, "MIRRORS", [download.Mirror("here", (url,), readers.read_png_archive)])
    began = time.monotonic()
    with pytest.raises(download.NotAvailable, match="here: "):
        download.fetch(cifar10.verify)
    assert time.monotonic() - began < 8
    assert "root:" not in capsys.readouterr().out


def test_a_proxy_that_is_set_after_a_failure_is_used(serve, monkeypatch):
    asked = []

    def proxy(connection):
        asked.append(connection.recv(1000).split()[1].decode())
        connection.sendall(OK + b"\r\nabc")
        connection.close()

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    mirror = download.Mirror("far", ("http://mirror.invalid/cifar10.tgz",), readers.read_png_archive)
    monkeypatch.setattr(download, "MIRRORS", [mirror])
    for address in (None, serve(proxy).rpartition("/")[0]):
        if address:
            monkeypatch.setenv("http_proxy", address)
        with pytest.raises(download.NotAvailable):
            download.fetch(cifar10.verify)
    assert asked == ["http://mirror.invalid/cifar10.tgz"]


def test_what_is_verified_does_not_change_with_the_file(monkeypatch, tmp_path):
    images = np.arange(2 * 3072, dtype=np.uint64).astype(np.uint8).reshape(2, 3, 32, 32)
    arrays = {f"{split}_images": images.copy() for split in ("train", "test")}
    arrays |= {f"{split}_labels": np.array([0, 1]) for split in ("train", "test")}
    monkeypatch.setattr(cifar10, "verify", lambda arrays, source: None)
    monkeypatch.setenv("QAT_DATA", "cifar10")
    cifar10._cache(arrays)
    dataset = cifar10.load()
    path = cifar10.cache_file()
    path.write_bytes(bytes(path.stat().st_size))
    assert np.array_equal(dataset.train_images.numpy(), images)
