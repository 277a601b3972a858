"""Each test starts without the user's settings and with its own folders for the cache and for runs."""

import os
from collections import Counter

import pytest
import torch
from hypothesis import settings

from qathelpers import nets
from qathelpers.data import Dataset, shapes
from qathelpers.data.cifar10 import cache_file, load

from .own_nets import MINE, TERNARY, OwnNet

# No deadline: a busy machine is not a fault. `pytest --hypothesis-profile=thorough` tries far more inputs.
settings.register_profile("course", deadline=None, max_examples=60)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile("course")

SEED = 26  # of the random inputs that `tried` counts
TRIED = Counter()  # these inputs, by kind


def tried(kind):
    """Count a random input; the number of each kind is printed at the end of the tests."""
    TRIED[kind] += 1


def pytest_terminal_summary(terminalreporter):
    if TRIED:
        counts = ", ".join(f"{count} {kind}" for kind, count in TRIED.items())
        terminalreporter.write_line(f"random inputs tried (seed {SEED}): {counts}")


SETTINGS = {name: value for name, value in os.environ.items() if name.startswith("QAT_")}


def forget_settings(patch):
    for variable in [name for name in os.environ if name.startswith("QAT_")]:
        patch.delenv(variable)


@pytest.fixture(autouse=True)
def clean_settings(monkeypatch, tmp_path):
    forget_settings(monkeypatch)
    monkeypatch.setenv("QAT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("QAT_RESULTS_DIR", str(tmp_path / "runs"))


@pytest.fixture(scope="session")
def tiny():
    """Return 400 training and 200 test images of the stand-in."""
    return Dataset(*shapes.make(400, 200), shapes.CLASSES, "shapes")


@pytest.fixture(scope="session")
def images():
    return torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def cifar10():
    """Return CIFAR-10 where the tests were started with it; a test that needs it is skipped elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        forget_settings(patch)
        for name in ("QAT_DATA_DIR", "QAT_CACHE_DIR"):
            if name in SETTINGS:
                patch.setenv(name, SETTINGS[name])
        if not cache_file().exists():
            pytest.skip("needs CIFAR-10 itself, in the cache of `qat data`: drawn shapes have no recorded accuracy")
        return load("cifar10")


@pytest.fixture
def short_course(monkeypatch):
    """Let the kernel of a notebook find the data that the tests were started with, and train for one short epoch."""
    for name in ("QAT_DATA", "QAT_DATA_DIR", "QAT_CACHE_DIR"):
        if name in SETTINGS:
            monkeypatch.setenv(name, SETTINGS[name])
        elif name == "QAT_CACHE_DIR":
            monkeypatch.delenv(name)
    monkeypatch.setenv("QAT_MAX_EPOCHS", "1")
    monkeypatch.setenv("QAT_MAX_IMAGES", "300")


@pytest.fixture
def registered(monkeypatch):
    """Register a scheme and an architecture as a reader would."""
    monkeypatch.setitem(nets.SCHEMES, "MyNN", MINE)
    monkeypatch.setitem(nets.SCHEMES, "alias", nets.Scheme("Named otherwise", "W1.58A32", TERNARY, None, TERNARY))
    monkeypatch.setitem(nets.ARCHITECTURES, "own", nets.Architecture(OwnNet))


@pytest.fixture(scope="session")
def browser():
    """One Chromium for all tests of a process: Playwright can be started only once in it."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
    from tools.demo_times import OFFLINE, chromium  # not at the top: most tests need no browser

    path = chromium()
    if path is None:
        pytest.skip("needs Chromium, such as Debian's package of that name")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OFFLINE)
        yield browser
        browser.close()
