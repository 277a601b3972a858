import io
import json
import socket
import threading
import urllib.request

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from qathelpers.__main__ import main
from qathelpers.common.errors import CourseError
from qathelpers.deploy import demo
from qathelpers.results import recorded_net
from qathelpers.training import predict

needs_compiler = pytest.mark.skipif(
    bool(demo.missing()), reason=f"needs a compiler for WebAssembly: {', '.join(demo.missing())}"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The page, built once."""
    return demo.build(tmp_path_factory.mktemp("demo") / "index.html")


@pytest.fixture
def page(browser, path):
    """The page, opened from the disk on a phone; a request to the network or an error of a script fails the test."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, offline=True)
    found, problems = context.new_page(), []
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
    found.goto(path.as_uri())
    found.wait_for_selector("[data-answer]")
    yield found
    context.close()
    assert not problems


def choose(page, image):
    """Choose an image (3, h, w) on the page, as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
    page.evaluate("document.querySelectorAll('article').forEach(card => delete card.dataset.answer)")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": file.getvalue()})
    page.wait_for_function("[...document.querySelectorAll('article')].every(card => card.dataset.answer)")
    return scores(page)


def scores(page):
    return {
        name: torch.tensor(json.loads(page.get_attribute(f"[data-net={name}]", "data-scores"))) for name in demo.NETS
    }


@needs_compiler
def test_the_nets_on_the_page_answer_as_in_pytorch(page, tiny):
    images = tiny.test_images[:12]
    found = [choose(page, image) for image in images]
    for name in demo.NETS:
        expected = predict(recorded_net(name), images)
        gaps = (torch.stack([each[name] for each in found]) - expected).abs().amax(1)
        assert (gaps < 1e-4).sum() >= 11  # rounding at a threshold changes the scores of few images
    answer = int(page.get_attribute("[data-net=TernaryNN]", "data-answer"))
    assert answer == predict(recorded_net("TernaryNN"), images[-1:]).argmax().item()


@needs_compiler
def test_flipped_bits_change_the_answers_and_can_be_repaired(page, tiny):
    before = choose(page, tiny.test_images[0])
    slider = page.locator("[data-net=BinaryNN] input[type=range]")
    slider.fill("14")
    broken = scores(page)
    assert (broken["BinaryNN"] - before["BinaryNN"]).abs().max() > 0.1
    assert torch.equal(broken["XnorNN"], before["XnorNN"])  # the other nets are whole
    assert "8,192 of" in page.locator("[data-net=BinaryNN]").inner_text()
    slider.fill("0")
    assert torch.equal(scores(page)["BinaryNN"], before["BinaryNN"])


@needs_compiler
def test_pictures_are_drawn_chosen_and_shrunk(page, tiny):
    first = scores(page)
    page.select_option("#drawn", "a frog")
    assert not torch.equal(scores(page)["TernaryNN"], first["TernaryNN"])
    before = scores(page)
    box = page.locator("#picture").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 150)
    page.mouse.up()
    assert not torch.equal(scores(page)["TernaryNN"], before["TernaryNN"])
    grey = torch.full((3, 301, 450), 120, dtype=torch.uint8)  # a photo of one colour stays that colour
    expected = predict(recorded_net("TernaryNN"), torch.full((1, 3, 32, 32), 120, dtype=torch.uint8))[0]
    assert torch.allclose(choose(page, grey)["TernaryNN"], expected, atol=1e-4)
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.wait_for_function("document.getElementById('status').textContent.includes('JPEG')")


@needs_compiler
@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_fits_the_screen_and_measures_its_time(browser, path, width):
    found = browser.new_page(viewport={"width": width, "height": 800}, color_scheme="dark")
    found.goto(path.as_uri())
    found.wait_for_function("[...document.querySelectorAll('article')].every(card => card.dataset.milliseconds)")
    assert found.evaluate("document.documentElement.scrollWidth") <= width
    times = [float(found.get_attribute(f"[data-net={name}]", "data-milliseconds")) for name in demo.NETS]
    assert all(0 < milliseconds < 500 for milliseconds in times)
    unnamed = "[...document.querySelectorAll('input, select, button')].filter(e => !e.labels?.length && !e.textContent)"
    assert found.evaluate(f"{unnamed}.length") == 0
    found.close()


@needs_compiler
def test_the_programs_are_small_and_always_the_same():
    net = recorded_net("XnorNN")
    program = demo.compile_net(net)
    assert program[:4] == b"\0asm" and len(program) < 95_000
    assert program == demo.compile_net(net)


@needs_compiler
def test_the_page_is_served_on_the_address_given(path, monkeypatch):
    servers = []
    start = demo.http.server.ThreadingHTTPServer.serve_forever
    monkeypatch.setattr(
        demo.http.server.ThreadingHTTPServer, "serve_forever", lambda self: (servers.append(self), start(self))
    )
    thread = threading.Thread(target=demo.serve, args=(path, "127.0.0.1", 0), daemon=True)
    thread.start()
    while not servers:
        thread.join(0.05)
    host, port = servers[0].server_address
    assert host == "127.0.0.1"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path.name}") as answer:
        assert answer.read() == path.read_bytes()
    servers[0].shutdown()
    thread.join(10)
    assert not thread.is_alive()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CourseError, match="--port"):
            demo.serve(path, "127.0.0.1", taken.getsockname()[1])


class Network:
    """Stands in for a socket on a computer with this address, or without a network."""

    def __init__(self, address):
        self.address = address

    def __call__(self, *_):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def connect(self, _):
        if self.address is None:
            raise OSError("Network is unreachable")

    def getsockname(self):
        return self.address, 40000


@pytest.mark.parametrize(
    ("address", "own", "expected"),
    [
        (demo.EVERYWHERE[0], "192.168.1.7", "192.168.1.7"),
        (demo.EVERYWHERE[0], None, "127.0.0.1"),
        ("127.0.0.1", "192.168.1.7", "127.0.0.1"),
        ("10.0.0.3", "192.168.1.7", "10.0.0.3"),
    ],
)
def test_the_address_printed_is_one_that_another_device_can_open(monkeypatch, address, own, expected):
    monkeypatch.setattr(demo.socket, "socket", Network(own))
    assert demo.reachable(address) == expected


def test_the_address_found_is_one_of_this_computer():
    with socket.socket() as server:
        server.bind((demo.reachable(demo.EVERYWHERE[0]), 0))


def test_without_a_compiler_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "missing", lambda: ["clang"])
    result = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "index.html")])
    assert result.exit_code == 1 and "apt-get install clang lld" in result.output
    assert not list(tmp_path.iterdir())
