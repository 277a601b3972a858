"""Hostile and damaged copies of CIFAR-10: each is refused before it fills the memory, and a good mirror is used."""

import gzip
import io
import socket
import tarfile
import threading
import time

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from qathelpers.common.errors import CourseError
from qathelpers.data import cifar10, download, parquet, readers

from . import hostile

LIMIT = 3_000_000  # bytes that an archive may unpack to in these tests


def large_header():
    """Return an archive whose pax header claims, and has, more bytes than all of CIFAR-10."""
    return gzip.compress(hostile.tar_header("x", 2 * LIMIT, tarfile.XHDTYPE) + bytes(2 * LIMIT))


def read_tables(files):
    return readers.read_parquets([*files, *files])


ARCHIVES = {
    "a file of a batch that is too large": (
        readers.read_official_archive,
        hostile.tar(("x/data_batch_1", bytes(LIMIT + 1))),
    ),
    "a header that is too large": (readers.read_official_archive, large_header()),
    "a header that is too large, of pictures": (readers.read_png_archive, large_header()),
    "many small files": (readers.read_official_archive, hostile.tar(*((f"x/{i}", bytes(200_000)) for i in range(20)))),
    "a picture of 900 megapixels": (readers.read_png_archive, hostile.tar(("train/cat/1.png", hostile.png()))),
    "an empty file": (readers.read_official_archive, b""),
    "a web page": (readers.read_png_archive, b"<html>sorry</html>"),
    "half an archive": (readers.read_official_archive, hostile.tar(("x/data_batch_1", bytes(9000)))[:-20]),
    "an archive without the files": (readers.read_official_archive, hostile.tar(("x/readme", b"hello"))),
    "a table of another program": (read_tables, b"PAR1" + bytes(50) + b"PAR1"),
    "a table with a page that is larger than its footer says": (read_tables, hostile.large_page(9_000_000)),
    "a table with a page that claims 2 GB": (read_tables, hostile.claimed_page()),
    "a table with a footer of 2 GB": (read_tables, hostile.large_footer(hostile.HUGE)),
    "a table with one large value in many rows": (read_tables, hostile.repeated(500_000, 12)),
    "a table with texts as labels": (read_tables, hostile.texts_as_labels(1000, 12)),
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


@pytest.mark.parametrize("options", [{}, {"compression": "zstd", "data_page_version": "2.0", "use_dictionary": False}])
def test_the_size_of_the_pages_is_what_the_table_unpacks_to(options):
    images = [{"bytes": np.random.default_rng(row).bytes(5000), "path": None} for row in range(1000)]
    content = io.BytesIO(hostile.parquet(images, list(range(1000)), **options))
    metadata = pyarrow.parquet.read_metadata(content)
    assert parquet.unpacked_size(content, metadata) == pytest.approx(5_000_000, rel=0.01)
    with pytest.raises(ValueError):
        parquet.unpacked_size(io.BytesIO(bytes(10_000_000)), metadata)
    with pytest.raises(ValueError, match="not in the file"):
        parquet.unpacked_size(io.BytesIO(content.getvalue()[:1000]), metadata)


def test_a_table_with_too_many_rows_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_IMAGES", 5)
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"img": [{"bytes": b"x"}] * 6, "label": [0] * 6}), path)
    with pytest.raises(CourseError, match=r"train\.parquet has 6 rows"):
        readers.read_parquets([path, path])


@pytest.mark.parametrize("content", hostile.PICKLES.values(), ids=hostile.PICKLES)
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
