import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

from qathelpers.common.errors import CourseError
from qathelpers.common.files import write_atomically


def test_the_old_content_stays_when_writing_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def half(temporary):
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(CourseError, match=rf"{re.escape(str(path))}.*No space left on device"):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CourseError, match=r"x\.npy.*QAT_RESULTS_DIR"):
        write_atomically(tmp_path / "file" / "x.npy", lambda path: path.write_text("x"))


def test_a_drive_without_permissions_does(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "chmod", mock.Mock(side_effect=PermissionError(1, "Operation not permitted")))
    write_atomically(tmp_path / "x", lambda path: path.write_text("x"))
    assert (tmp_path / "x").read_text() == "x"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(CourseError, match=r"x\b.*No space left"):
        write_atomically(tmp_path / "x", lambda _: Path("/dev/full").write_text("x" * 100_000))


WRITER = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from qathelpers.common.files import write_atomically
for i in range(60):
    tensor = torch.full((20_000,), float(sys.argv[2]))
    write_atomically(Path(sys.argv[1]), lambda path: save_file({"x": tensor}, path))
"""


def test_two_writers_never_leave_half_of_each(tmp_path):
    from safetensors.torch import load_file

    path = tmp_path / "x.safetensors"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(value)]) for value in (1, 2)]
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            assert len(load_file(path)["x"].unique()) == 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert torch.isin(load_file(path)["x"].unique(), torch.tensor([1.0, 2.0])).all()
