"""Downloads from local servers that work, or send wrong data, break off, stall, or do not answer."""

import io
import re
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from qathelpers.data import download, readers
from qathelpers.data.download import Mirror

from .test_readers import arrays, content, png, write_batches  # noqa: F401, a fixture


@pytest.fixture
def archive(arrays, tmp_path):  # noqa: F811
    """Return the class folders as a tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for split in ("train", "test"):
            pairs = zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
            for i, (image, label) in enumerate(pairs):
                data = png(image)
                info = tarfile.TarInfo(f"cifar10/{split}/{readers.CLASSES[label]}/{i}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture
def server(archive, monkeypatch):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/absent"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(archive)))
            self.end_headers()
            if self.path.startswith("/good"):
                self.wfile.write(archive)
            elif self.path.startswith("/broken"):
                self.wfile.write(archive[: len(archive) // 2])
            elif self.path.startswith("/wrong"):
                self.wfile.write(b"?" * len(archive))
            elif self.path.startswith("/silent"):
                time.sleep(1)
            else:  # slow
                for i in range(40):
                    self.wfile.write(archive[i : i + 1])
                    self.wfile.flush()
                    time.sleep(0.05)

        def log_message(self, *arguments):
            pass

    monkeypatch.setattr(download, "TIMEOUT", 0.4)
    monkeypatch.setattr(download, "WINDOW", 0.5)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()


def accept(arrays, source):  # noqa: F811
    assert arrays["train_images"].shape == (50, 3, 32, 32)


def mirrors(server, *kinds):
    return [Mirror(kind, (f"{server}/{kind}/cifar10.tgz",), readers.read_png_archive) for kind in kinds]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("absent", "404"),
        ("broken", r"after [\d,]+ of [\d,]+ bytes"),
        ("wrong", r"cifar10\.tgz is not a complete"),
        ("silent", "timed out"),
        ("slow", "stalled"),
    ],
)
def test_the_next_mirror_is_tried(server, monkeypatch, capsys, arrays, kind, reason):  # noqa: F811
    monkeypatch.setattr(download, "MIRRORS", mirrors(server, kind, "good"))
    assert content(download.fetch(accept)) == content(arrays)
    output = capsys.readouterr().out
    assert re.search(rf"CIFAR-10 from {kind}: .*{reason}", output)


def test_a_mirror_with_other_content_is_passed_over(server, monkeypatch, capsys):
    refused = []

    def verify(arrays, source):  # noqa: F811
        if not refused:
            refused.append(source)
            raise download.CourseError(f"{source} is not CIFAR-10")

    monkeypatch.setattr(download, "MIRRORS", mirrors(server, "good", "good2"))
    download.fetch(verify)
    assert "the copy from good is not CIFAR-10" in capsys.readouterr().out


def test_when_none_delivers_every_answer_is_listed(server, monkeypatch):
    monkeypatch.setattr(download, "MIRRORS", mirrors(server, "absent", "broken"))
    with pytest.raises(download.NotAvailable, match=r"absent: .*404.*; broken: .*bytes"):
        download.fetch(accept)


def test_the_official_archive(arrays, tmp_path, monkeypatch):  # noqa: F811
    write_batches(tmp_path / "cifar-10-batches-py", arrays)
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
    assert content(readers.read_official_archive([path])) == content(arrays)


def test_mirrors_end_with_the_official_host():
    assert "toronto" in download.MIRRORS[-1].urls[0] and len(download.MIRRORS) == 3
    assert all(url.startswith("https://") for mirror in download.MIRRORS for url in mirror.urls)
