import json
import math
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qathelpers.common.errors import CourseError
from qathelpers.training.history import ROW, History


def history(epochs=3, **config):
    result = History({"name": "BinaryNN", "data": "shapes", "epochs": 5} | config)
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
    assert loaded.config == saved.config and np.array_equal(loaded.rows, saved.rows)


def test_the_npy_is_a_plain_structured_array_and_the_json_names_the_net(tmp_path):
    path = history().save(tmp_path / "h.npy")
    rows = np.load(path, allow_pickle=False)
    assert rows.dtype == ROW and rows["test_acc"].tolist() == [0.2] * 3
    assert json.loads(path.with_suffix(".json").read_text())["name"] == "BinaryNN"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 0.999))
def test_a_truncated_file_is_named(tmp_path, keep):
    path = history().save(tmp_path / "h.npy")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CourseError, match=r"h\.npy"):
        History.load(path)


@pytest.mark.parametrize("before", [0, 1])
def test_rows_can_be_read_if_the_process_was_killed_before_it_wrote_the_config(tmp_path, monkeypatch, before):
    path, replace = tmp_path / "BinaryNN.npy", os.replace
    if before:
        history(before).save(path)

    def replace_and_die_after_the_rows(source, target):
        replace(source, target)
        if str(target).endswith(".npy"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", replace_and_die_after_the_rows)
        history(before + 1).save(path)
    assert len(History.load(path)) == before + 1


def test_the_accuracy_is_that_of_the_saved_weights_if_it_is_known():
    finished = history(test_acc=0.25, evaluation="bf16")
    assert (finished.test_acc, finished.evaluation) == (0.25, "fp32")
    for precision in ("fp32", "bf16"):
        without_weights = history(evaluation=precision)
        assert (without_weights.test_acc, without_weights.evaluation) == (0.2, precision)


def test_a_history_without_epochs_has_no_accuracy_and_an_old_one_no_known_precision():
    assert math.isnan(history(0).test_acc) and history().evaluation == "unknown"


def test_the_last_line_has_the_numbers_of_the_last_epoch():
    line = history().last_line()
    assert all(part in line for part in ("BinaryNN", "3/5", "1.500", "0.1000", "2.000", "0.2000"))
