"""Measure the WebAssembly programs of `make demo`: their size, and their time per image in Node.js and in Chromium.

Run `python -m tools.demo_times` while no other program runs. Node.js or Chromium is left out if it is not installed.
"""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import click
import pandas as pd

from qathelpers.deploy import demo
from qathelpers.results import recorded_net

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
OFFLINE = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
LONGEST_LOADING = 120_000  # milliseconds
# The shortest of 300 calls, after as many calls in which Node.js optimizes the program.
NODE = """
const bytes = require("fs").readFileSync(process.argv[2]);
const code = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports;
const memory = new Uint8Array(code.memory.buffer);
for (let i = 0; i < 3 * 32 * 32; i++) memory[code.image_bytes() + i] = 37 * i % 256;
let best = Infinity;
for (let i = 0; i < 600; i++) {
  const start = process.hrtime.bigint();
  code.run();
  if (i >= 300) best = Math.min(best, Number(process.hrtime.bigint() - start) / 1e6);
}
console.log(JSON.stringify(best));
"""


def in_node(program: bytes) -> float:
    """Return the milliseconds per image of a program of `demo.compile_net`; NaN without Node.js."""
    node = shutil.which("node")
    if node is None:
        return float("nan")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "time.js").write_text(NODE, encoding="utf-8")
        (Path(folder) / "net.wasm").write_bytes(program)
        return json.loads(subprocess.check_output([node, "time.js", "net.wasm"], cwd=folder, text=True))


def chromium() -> str | None:
    """Return the path of Chromium or Chrome, or None if neither is installed."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def in_chromium(page: Path, names: tuple[str, ...] = demo.NETS) -> dict[str, float]:
    """Return what a page of `demo.build` measures in headless Chromium: milliseconds per image, by net.

    The result is empty without Chromium, or without the package playwright.
    """
    path = chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    if path is None:
        return {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OFFLINE)
        found = browser.new_page()
        found.goto(page.resolve().as_uri())
        measured = "[...document.querySelectorAll('article')].every(card => card.dataset.milliseconds)"
        found.wait_for_function(measured, timeout=LONGEST_LOADING)
        times = {name: float(found.get_attribute(f"[data-net={name}]", "data-milliseconds")) for name in names}
        browser.close()
    return times


def measure(arch: str = "convnet", names: tuple[str, ...] = demo.NETS) -> pd.DataFrame:
    """Return size and times of the nets of one architecture, one row per net; NaN where a program is missing.

    Args:
        arch: The architecture.
        names: The recorded nets to measure.
    """
    programs = {name: demo.compile_net(recorded_net(name, arch)) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        in_browser = in_chromium(demo.build(Path(folder) / "index.html", arch, names), names)
    rows = {
        name: {"kB": len(program) / 1000, "ms in Node.js": in_node(program), "ms in Chromium": in_browser.get(name)}
        for name, program in programs.items()
    }
    return pd.DataFrame(rows, dtype=float).T.rename_axis("net")


@click.command()
@click.option("--arch", default="convnet", show_default=True)
def main(arch: str) -> None:
    """Print the size of the programs of `make demo`, and their time per image in milliseconds."""
    print(measure(arch).round(3).to_string(na_rep="-"))


if __name__ == "__main__":
    main()
