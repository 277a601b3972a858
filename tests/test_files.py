import contextlib
import os
import re
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from qathelpers.common.errors import CourseError
from qathelpers.common.files import (
    Unreadable,
    check_replaceable,
    check_writable,
    files_in,
    write_atomically,
)

from . import processes
from .odd_files import NOBODY, as_nobody, shared_folder


def test_the_old_content_stays_when_writing_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old", encoding="utf-8")

    def half(temporary):
        temporary.write_text("ne", encoding="utf-8")
        raise OSError(28, "No space left on device")

    with pytest.raises(CourseError, match=rf"{re.escape(str(path))}.*No space left on device"):
        write_atomically(path, half)
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(CourseError, match=r"x\.npy.*QAT_RESULTS_DIR"):
        write_atomically(tmp_path / "file" / "x.npy", lambda path: path.write_text("x", encoding="utf-8"))


def test_a_drive_without_permissions_does(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "chmod", mock.Mock(side_effect=PermissionError(1, "Operation not permitted")))
    write_atomically(tmp_path / "x", lambda path: path.write_text("x", encoding="utf-8"))
    assert (tmp_path / "x").read_text(encoding="utf-8") == "x"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(CourseError, match=r"x\b.*No space left"):
        write_atomically(tmp_path / "x", lambda _: Path("/dev/full").write_text("x" * 100_000, encoding="utf-8"))


def write_often(rank, path):
    for _ in range(60):
        tensor = torch.full((20_000,), float(rank))
        write_atomically(path, lambda temporary, tensor=tensor: save_file({"x": tensor}, temporary))


def test_two_writers_never_leave_half_of_each(tmp_path):
    path = tmp_path / "x.safetensors"
    writers, seen = processes.start(2, write_often, path), 0
    while not writers.join(timeout=0):
        if path.exists():
            assert len(load_file(path)["x"].unique()) == 1
            seen += 1
    assert seen > 1
    assert load_file(path)["x"].unique().tolist() in ([0.0], [1.0])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the working directory from being deleted")
def test_a_folder_is_found_although_the_working_directory_was_deleted(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    check_writable(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_files_of_a_folder_are_listed_without_hidden_ones_and_a_missing_folder_has_none(tmp_path):
    for name in ("b.npy", "a.npy", "._a.npy", ".a.npy.abcd1234", "a.json"):
        (tmp_path / name).touch()
    assert files_in(tmp_path, ".npy") == [tmp_path / "a.npy", tmp_path / "b.npy"]
    assert files_in(tmp_path / "missing", ".npy") == []
    with pytest.raises(CourseError, match=r"a\.json is not a folder"):
        files_in(tmp_path / "a.json", ".npy")


def test_a_folder_of_another_user_that_cannot_be_listed_does_not_look_empty():
    with shared_folder() as folder:
        (folder / "runs").mkdir(mode=0o700)
        with as_nobody(), pytest.raises(Unreadable, match=r"runs.*QAT_RESULTS_DIR"):
            files_in(folder / "runs", ".npy")


@pytest.mark.parametrize(("variable", "folder"), [("QAT_CACHE_DIR", "cache"), ("QAT_RESULTS_DIR", "runs")])
def test_without_permission_the_variable_to_set_is_named_and_no_disk_space(monkeypatch, variable, folder):
    with shared_folder() as shared:
        monkeypatch.setenv(variable, str(shared / folder))
        write_atomically(shared / folder / "x", lambda path: path.write_text("old", encoding="utf-8"))
        with as_nobody():
            for write in (
                lambda: write_atomically(shared / folder / "x", lambda path: path.write_text("new", encoding="utf-8")),
                lambda: check_writable(shared / folder),
                lambda: check_writable(shared / folder / "new"),
            ):
                with pytest.raises(CourseError, match=rf"{folder}.*{variable}") as refused:
                    write()
                assert "disk space" not in str(refused.value)
        assert (shared / folder / "x").read_text(encoding="utf-8") == "old"


def test_a_file_that_one_user_wrote_is_replaced_by_another_in_a_folder_that_both_can_write():
    with shared_folder(0o777) as folder:
        write_atomically(folder / "x", lambda path: path.write_text("of one", encoding="utf-8"))
        with as_nobody():
            check_replaceable(folder / "x")
            write_atomically(folder / "x", lambda path: path.write_text("of another", encoding="utf-8"))
        assert (folder / "x").read_text(encoding="utf-8") == "of another" and (folder / "x").stat().st_uid == NOBODY


@pytest.mark.parametrize("named", ["x", "missing", "own"])
def test_a_file_in_a_sticky_folder_can_be_replaced_by_its_owner_only(named):
    with shared_folder(0o1777) as folder:
        (folder / "x").touch()
        with as_nobody():
            (folder / "own").touch()
            with pytest.raises(CourseError, match=r"x.*QAT_RESULTS_DIR") if named == "x" else contextlib.nullcontext():
                check_replaceable(folder / named)
        check_replaceable(folder / named)  # root may replace any file


def test_temporary_files_of_killed_processes_do_not_pile_up(tmp_path):
    path = tmp_path / "plot.png"
    old, new, other = (tmp_path / name for name in (".plot.png.abcd1234", ".plot.png.efgh5678", ".plot.svg.abcd1234"))
    for file in (old, new, other):
        file.write_text("half", encoding="utf-8")
    for file in (old, other):
        os.utime(file, (0, 0))
    write_atomically(path, lambda temporary: temporary.write_text("whole", encoding="utf-8"))
    assert set(tmp_path.iterdir()) == {path, new, other}  # another process may be writing the new one
