"""What the tests of this folder share: two finished runs, and a check of what an error names."""

import re
import shutil

import pytest

from qathelpers import results, training
from qathelpers.common.errors import CourseError
from qathelpers.data import Dataset, shapes
from qathelpers.nets import build

from ..conftest import forget_settings

IMAGES = 60  # of each split
EPOCHS = 2  # of the two finished runs


@pytest.fixture(scope="session")
def dataset():
    return Dataset(*shapes.make(IMAGES, IMAGES), shapes.CLASSES, "shapes")


@pytest.fixture(scope="session")
def trained(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        forget_settings(patch)
        for name in ("BinaryNN", "TernaryNN"):
            training.fit(build(name, "lenet"), dataset, EPOCHS, device="cpu", folder=folder)
    return folder


@pytest.fixture
def runs(trained, monkeypatch):
    """Return the user's folder of runs, with a copy of two finished ones: BinaryNN and TernaryNN, both lenets."""
    monkeypatch.setenv("QAT_DATA", "shapes")
    monkeypatch.setenv("QAT_MAX_IMAGES", str(IMAGES))
    folder = results.run_folder("shapes", "lenet")
    shutil.copytree(trained, folder)
    return folder


def contents(folder):
    """Return the bytes of all files in `folder`, by path, except for locks and the names of who holds them."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "lock" not in path.name.split(".")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def assert_names(message, named):
    """Check that each of `named` is in `message`, and not just as a part of a longer word or number."""
    missing = [word for word in named if not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", message)]
    assert not missing, f"{missing} not in: {message}"


def assert_refused(call, error, named):
    """Check that `call` raises exactly `error`, or a kind of CourseError, and that its message names all of `named`."""
    with pytest.raises(error) as raised:
        call()
    assert raised.type is error or issubclass(error, CourseError)
    assert_names(str(raised.value), named)
