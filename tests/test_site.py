"""The website: its pages, links and alternative texts, and what a browser says about it."""

import base64
import functools
import html.parser
import http.server
import importlib.util
import re
import threading
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import nbformat
import pytest

from tools import site

ROOT = Path(__file__).parent.parent
PNG = base64.encodebytes(
    b"\x89PNG a picture that is long enough for two lines of base64, which are at most 76 characters"
)


def test_pictures_keep_their_alternative_text():
    output = nbformat.v4.new_output("display_data", {"image/png": PNG.decode(), "text/plain": "x"})
    output.metadata["image/png"] = {"alt": 'A "line" & <points>'}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("show()", outputs=[output])])
    (shown,) = site.with_alternative_texts(notebook).cells[0].outputs
    assert 'alt="A &quot;line&quot; &amp; &lt;points&gt;"' in shown.data["text/html"]
    source = re.search(r'src="data:image/png;base64,([^"\s]+)"', shown.data["text/html"])[1]
    assert base64.b64decode(source) == base64.decodebytes(PNG) and "image/png" not in shown.data
    assert "image/png" in notebook.cells[0].outputs[0].data, "the notebook itself was changed"


@pytest.mark.parametrize(
    ("folder", "link", "with_address", "without"),
    [
        ("docs", "[a](../README.md#license)", "[a](../index.md#license)", None),
        ("docs", "[a](results.md)", "[a](results.md)", None),
        (".", "[`b`](qathelpers/training/loop.py)", "[`b`](api/training.rst)", None),
        ("docs", "[b](../qathelpers/nets)", "[b](../api/nets.rst)", None),
        (".", "[c](tools)", "[c](https://a.b/c/tree/main/tools)", "c"),
        (
            ".",
            "[d](https://example.org) ![e](docs/x.svg) [f](#g)",
            "[d](https://example.org) ![e](docs/x.svg) [f](#g)",
            None,
        ),
        (".", "```\n[c](tools)\n```", "```\n[c](tools)\n```", None),
        ("notebooks", "[h](01_float_baseline.ipynb#x)", "[h](01_float_baseline.ipynb#x)", None),
    ],
)
def test_links_lead_to_pages_of_the_site(folder, link, with_address, without):
    assert site._link_writer(ROOT, "https://a.b/c")(link, ROOT / folder) == with_address
    assert site._link_writer(ROOT, "")(link, ROOT / folder) == (without or with_address)


def test_every_module_and_every_page_is_collected(tmp_path):
    site.collect(ROOT, tmp_path)
    documented = set(re.findall(r"automodule:: (\S+)", "".join(p.read_text("utf-8") for p in tmp_path.glob("api/*"))))
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "qathelpers").rglob("*/*.py")}
    assert documented == {name.removesuffix(".__init__") for name in modules if name.count(".") > 1} - packages_below()
    listed = (tmp_path / "index.md").read_text("utf-8")
    for page in [*tmp_path.rglob("*.md"), *tmp_path.rglob("*.ipynb"), *tmp_path.rglob("*.rst")]:
        name = page.relative_to(tmp_path).with_suffix("").as_posix()
        assert name == "index" or f"\n{name}\n" in listed, f"{name} is in no table of contents"


def packages_below():
    """Return the packages inside a room, whose modules are documented one by one."""
    folders = [path.parent for path in (ROOT / "qathelpers").glob("*/*/__init__.py")]
    return {".".join(folder.relative_to(ROOT).parts) for folder in folders}


class Page(html.parser.HTMLParser):
    """The links, the anchors and the pictures without alternative text of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.silent = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        self.links += [given[name] for name in ("href", "src") if given.get(name)]
        if tag == "img" and not given.get("alt"):
            self.silent.append(given.get("src", "")[:60])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    if not all(map(importlib.util.find_spec, ("sphinx", "myst_nb", "furo", "latex2mathml"))):
        pytest.skip('needs `pip install -e ".[site]"`')
    return site.build(ROOT, tmp_path_factory.mktemp("site")).parent


@pytest.mark.slow
def test_no_link_of_the_site_is_broken_and_no_picture_is_silent(built):
    pages = {path.resolve(): Page(path.read_text("utf-8")) for path in built.rglob("*.html")}
    assert len(pages) > 40
    broken, silent = [], []
    for path, page in pages.items():
        silent += [(path.name, source) for source in page.silent]
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = target in pages and (not parts.fragment or unquote(parts.fragment) in pages[target].anchors)
            if not known and not (target.is_file() and not (target in pages and parts.fragment)):
                broken.append(f"{path.relative_to(built)}: {link}")
    assert not broken and not silent


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_finds_no_error_and_asks_no_other_server(built, scheme, browser):
    handler = functools.partial(Quiet, directory=str(built))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        page = browser.new_page(color_scheme=scheme)
        errors, requests = [], []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        names = ["index.html", *(f"notebooks/{path.stem}.html" for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))]
        for name in [*names, "api/nets.html", "docs/results.html"]:
            page.goto(urljoin(address, name))
            assert page.locator("h1").count() == 1, name
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) > 380) == (scheme == "light")
        page.goto(urljoin(address, "search.html?q=straight-through"))
        page.wait_for_selector("ul.search li a", timeout=20_000)
        page.goto(urljoin(address, "notebooks/03_binary_net.html"))
        assert page.locator("math").count() > 0 and page.locator("img.figure").count() > 0
        page.close()
        server.shutdown()
    assert errors == []
    assert not [url for url in requests if not url.startswith((address, "data:"))]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
