import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qathelpers.errors import CourseError
from qathelpers.files import write_atomically
from qathelpers.history import ROW, History


def history(epochs=3):
    result = History({"name": "BinaryNN", "data": "shapes"})
    for epoch in range(epochs):
        result.append(epoch=epoch + 1, train_loss=1.5, train_acc=0.1, test_loss=2.0, test_acc=0.2, seconds=1.0)
    return result


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.floats(0, 1e6), max_size=5))
def test_what_is_loaded_is_what_was_saved(tmp_path, values):
    saved = History({"name": "Üx", "epochs": 3})
    for v in values:
        saved.append(epoch=1, train_loss=v, train_acc=v, test_loss=v, test_acc=v, seconds=v)
    loaded = History.load(saved.save(tmp_path / "h.npy"))
    assert loaded.card == saved.card and np.array_equal(loaded.rows, saved.rows)


def test_the_npy_is_a_plain_structured_array(tmp_path):
    rows = np.load(history().save(tmp_path / "h.npy"), allow_pickle=False)
    assert rows.dtype == ROW and rows["test_acc"].tolist() == [0.2] * 3


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 0.999))
def test_a_truncated_file_is_named(tmp_path, keep):
    path = history().save(tmp_path / "h.npy")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CourseError, match=r"h\.npy"):
        History.load(path)


def test_a_first_epoch_is_readable_when_its_card_was_not_written_any_more(tmp_path, monkeypatch):
    run, written = history(epochs=1), []

    def killed_after_the_rows(path, write):
        if ".npy" in "".join(written):
            raise KeyboardInterrupt
        write_atomically(path, write)
        written.append(path.name)

    monkeypatch.setattr("qathelpers.history.write_atomically", killed_after_the_rows)
    with pytest.raises(KeyboardInterrupt):
        run.save(tmp_path / "BinaryNN.npy")
    assert len(History.load(tmp_path / "BinaryNN.npy")) == 1
