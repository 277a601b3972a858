import contextlib
import io
import time

import pytest

from qathelpers.common import progress as module
from qathelpers.common.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(module, "DELAY", 0)


def test_a_terminal_shows_a_bar_that_disappears():
    with contextlib.redirect_stdout(Terminal()) as terminal:
        assert list(progress(range(3), title="epoch 1/2")) == [0, 1, 2]
    frames = terminal.getvalue().split("\r")
    assert any("epoch 1/2" in frame for frame in frames)
    assert not frames[-2].strip() and not frames[-1]  # overwritten with spaces


def test_bytes_are_shown_in_megabytes():
    with contextlib.redirect_stdout(Terminal()) as terminal, progress(title="file", total=5_000_000, unit="B") as bar:
        time.sleep(0.2)  # longer than the interval at which tqdm draws
        bar.update(2_500_000)
    assert "2.50M/5.00M" in terminal.getvalue()


def test_a_log_file_shows_no_bar(capsys):
    assert list(progress(range(3), title="epoch")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
