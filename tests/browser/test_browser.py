"""The widgets as people use them: in JupyterLab, in a real browser.

The tests are skipped where Chromium or Playwright is missing.
"""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from ..conftest import SETTINGS

sync_api = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, such as Debian's package of that name")

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
OFFLINE = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
MINUTE = 60_000  # milliseconds


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_settings(folder):
    """Render all cells at once, and do not ask about news."""
    values = {
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }
    for name, value in values.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a JupyterLab server on a copy of the notebooks, with little data."""
    folder = tmp_path_factory.mktemp("lab")
    for path in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(path, folder / path.name)
    write_settings(folder / "settings")
    short = {"QAT_MAX_EPOCHS": "50", "QAT_MAX_IMAGES": "2000", "QAT_RESULTS_DIR": str(folder / "runs")}
    here = {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTER_CONFIG_DIR": str(folder / "config")}
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    options = ["--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={folder}"]
    with open(folder / "log", "w") as log:
        environment = os.environ | SETTINGS | short | here
        process = subprocess.Popen([*command, *options], env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, process, folder / "log")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def wait_for(address, process, log):
    for _ in range(120):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/api", timeout=2)  # noqa: S310, it is our own server
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        yield browser
        browser.close()


@pytest.fixture
def open_and_run(server, browser, request):
    """A function that opens a notebook, runs all its cells and returns the page."""
    pages = []

    def open_and_run(name):
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        pages.append(page)
        # Each notebook gets its own workspace: the default one would reopen those of earlier tests in hidden tabs.
        page.goto(f"{server}/lab/workspaces/{name}/tree/{name}.ipynb")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=2 * MINUTE)
        page.get_by_text(re.compile(r"\| Idle$")).wait_for(timeout=2 * MINUTE)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.locator(".jp-InputPrompt", has_text="[1]:").first.wait_for(timeout=MINUTE)
        return page

    yield open_and_run
    for page in pages:
        page.close()


def keep(page, locator, name):
    """Save a screenshot of a widget in the folder QAT_SCREENSHOTS, if set."""
    folder = SETTINGS.get("QAT_SCREENSHOTS")
    if folder:
        locator.scroll_into_view_if_needed()
        locator.screenshot(path=Path(folder) / f"{name}.png")


def widget_with(page, text):
    """The output of a cell that holds a button or a control labelled `text`."""
    return page.locator(".jp-OutputArea-output", has=page.get_by_text(text, exact=True)).last


def button(widget, name):
    return widget.locator("button", has_text=re.compile(f"^{name}$"))


def test_the_panel_in_03_trains_stops_and_resumes(open_and_run):
    page = open_and_run("03_binary_net")
    panel = widget_with(page, "batch size")
    panel.wait_for(timeout=4 * MINUTE)
    # A cell of the notebook presses Train too; the reader has to wait for that training.
    panel.get_by_text("Done: BinaryNN").wait_for(timeout=3 * MINUTE)
    epochs = panel.locator(".widget-text:has-text('epochs') input")
    epochs.fill("2")
    epochs.press("Enter")
    button(panel, "Train").click()
    panel.get_by_text(re.compile("Training: .* left")).wait_for(timeout=MINUTE)
    assert button(panel, "Train").is_disabled() and button(panel, "Stop").is_enabled()
    panel.get_by_text(re.compile(r"Done: BinaryNN .* 0\.\d+ after 2 epochs")).wait_for(timeout=2 * MINUTE)
    assert panel.locator("img").evaluate("image => image.naturalWidth") == 810
    assert "blocks.0.widen.1" in panel.inner_text()
    keep(page, panel, "panel-done")

    epochs.fill("50")
    epochs.press("Enter")
    button(panel, "Train").click()
    panel.get_by_text("BinaryNN epoch 2/50").wait_for(timeout=2 * MINUTE)
    start = time.monotonic()
    button(panel, "Stop").click()
    panel.get_by_text(re.compile("Stopped: .* of 50 epochs")).wait_for(timeout=MINUTE)
    assert time.monotonic() - start < 10
    assert button(panel, "Resume").is_enabled() and button(panel, "Stop").is_disabled()
    keep(page, panel, "panel-stopped")
    button(panel, "Resume").click()
    panel.get_by_text("resumed after epoch").wait_for(timeout=MINUTE)
    button(panel, "Stop").click()
    panel.get_by_text(re.compile("Stopped: .* of 50 epochs")).wait_for(timeout=MINUTE)


def test_the_explorer_in_02_follows_its_controls(open_and_run):
    page = open_and_run("02_what_a_quantizer_does")
    explorer = widget_with(page, "narrow range")
    explorer.wait_for(timeout=3 * MINUTE)
    explorer.get_by_text("3 levels in use").wait_for(timeout=MINUTE)
    picture = explorer.locator("img").get_attribute("src")
    explorer.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    explorer.get_by_text(re.compile("[4-7] levels in use")).wait_for(timeout=MINUTE)
    assert explorer.locator("img").get_attribute("src") != picture
    keep(page, explorer, "explorer")


def test_the_guesser_in_06_takes_a_photo(open_and_run):
    page = open_and_run("06_results_comparison")
    guesser = widget_with(page, "disagree →")
    guesser.wait_for(timeout=4 * MINUTE)
    button(guesser, "disagree →").click()
    guesser.get_by_text(re.compile("Test image [1-9]")).wait_for(timeout=MINUTE)
    keep(page, guesser, "guesser")
    photo = io.BytesIO()
    Image.linear_gradient("L").resize((400, 300)).save(photo, "PNG")
    file = {"name": "sky.png", "mimeType": "image/png", "buffer": photo.getvalue()}
    with page.expect_file_chooser(timeout=MINUTE) as chooser:
        guesser.locator("button", has_text="upload photo").click()
    chooser.value.set_files(file)
    guesser.get_by_text("sky.png").first.wait_for(timeout=MINUTE)
    assert guesser.get_by_text("%").count() >= 9
    keep(page, guesser, "guesser-upload")

    comparison = widget_with(page, "BinaryNN (W1A32)")
    before = comparison.locator("img").first.get_attribute("src")
    comparison.get_by_text("BinaryNN (W1A32)").click()
    page.wait_for_function(
        "([image, before]) => image.src != before", arg=[comparison.locator("img").first.element_handle(), before]
    )
    keep(page, comparison, "comparison")
