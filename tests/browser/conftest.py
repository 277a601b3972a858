"""One JupyterLab server and one Chromium for all browser tests; they are skipped without Chromium or Playwright."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from ..conftest import SETTINGS
from ..processes import free_port

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PATIENCE = 300_000  # milliseconds for each step: a busy machine is not a fault
THEMES = ("JupyterLab Light", "JupyterLab Dark")
WIDTHS = (1400, 900, 600)


@dataclass
class Server:
    """A running JupyterLab server."""

    address: str
    folder: Path


def write_settings(folder):
    """Render all cells at once, and do not ask about news."""
    values = {
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }
    for name, value in values.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A JupyterLab server on a copy of the notebooks, with little data."""
    folder = tmp_path_factory.mktemp("lab")
    for path in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(path, folder / path.name)
    write_settings(folder / "settings")
    short = {"QAT_MAX_EPOCHS": "400", "QAT_MAX_IMAGES": "2000", "QAT_RESULTS_DIR": str(folder / "runs")}
    here = {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTER_CONFIG_DIR": str(folder / "config")}
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    # The page can then change its theme with `jupyterapp.commands`.
    options = ["--LabApp.expose_app_in_browser=True", "--IdentityProvider.token=", "--ServerApp.password="]
    with open(folder / "log", "w", encoding="utf-8") as log:
        environment = os.environ | SETTINGS | short | here
        process = subprocess.Popen(
            [*command, *options, f"--ServerApp.root_dir={folder}"], env=environment, stdout=log, stderr=log
        )
    server = Server(f"http://127.0.0.1:{port}", folder)
    try:
        wait_for(server.address, process, folder / "log")
        yield server
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
    pytest.fail(f"JupyterLab did not start: {log.read_text(encoding='utf-8')[-2000:]}")


@pytest.fixture(scope="module")
def open_notebook(server, browser):
    """A function that opens a notebook in a page of its own, waits for its kernel and returns the page."""
    pages, numbers = [], itertools.count()

    def open_notebook(name, width=1300, height=1000):
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(PATIENCE)
        pages.append(page)
        # Each page gets its own workspace: the default one would reopen those of earlier tests in hidden tabs.
        page.goto(f"{server.address}/lab/workspaces/{name}-{next(numbers)}/tree/{name}.ipynb")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        page.get_by_text(re.compile(r"\| Idle$")).wait_for()
        return page

    yield open_notebook
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def open_and_run(open_notebook):
    """A function that opens a notebook, runs all its cells and returns the page."""

    def open_and_run(name, width=1300, height=1000):
        page = open_notebook(name, width, height)
        run_all(page)
        return page

    return open_and_run


@pytest.fixture(scope="module")
def open_cells(server, open_and_run):
    """A function that writes a notebook of the given code cells, opens it, runs all cells and returns the page."""

    def open_cells(name, *sources, width=1300, height=1000):
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), server.folder / f"{name}.ipynb")
        return open_and_run(name, width, height)

    return open_cells


def run_all(page):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.locator(".jp-InputPrompt", has_text="[1]:").first.wait_for()


def set_theme(page, theme):
    """Change JupyterLab's theme; the server keeps it, so a test has to set it back."""
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    light = "false" if "Dark" in theme else "true"
    page.locator(f"body[data-jp-theme-light='{light}']").wait_for(state="attached")


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
