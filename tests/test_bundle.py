import subprocess
import tarfile

import pytest

from tools import bundle


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Return a folder with one commit and one later change."""
    folder = tmp_path / "course"
    folder.mkdir()
    (folder / "kept.txt").write_text("committed", encoding="utf-8")
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    (folder / "kept.txt").write_text("unfinished", encoding="utf-8")
    monkeypatch.setattr(bundle, "CHECKOUT", folder)
    return folder


@pytest.mark.parametrize("filters", [True, False], ids=["with filters", "without filters"])
def test_the_last_commit_is_unpacked_with_and_without_tar_filters(repository, tmp_path, monkeypatch, filters):
    if not filters:
        extractall = tarfile.TarFile.extractall
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
        # As in Python before 3.10.12: extractall takes no filter.
        monkeypatch.setattr(tarfile.TarFile, "extractall", lambda self, path: extractall(self, path))
        monkeypatch.setattr(tarfile.TarFile, "extraction_filter", staticmethod(lambda m, _: m), raising=False)
    target = tmp_path / "unpacked"
    target.mkdir()
    bundle.checkout(target)
    assert [path.name for path in target.iterdir()] == ["kept.txt"]
    assert (target / "kept.txt").read_text(encoding="utf-8") == "committed"
    assert not target.with_suffix(".commit.tar").exists()
