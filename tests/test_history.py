import json
import math
import os
import re

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qathelpers.common.errors import CourseError
from qathelpers.common.files import Unreadable
from qathelpers.training.history import ROW, History

from .odd_files import PYTORCH, as_it_is, as_nobody, odd_files, shared_folder


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
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["name"] == "BinaryNN"


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


@odd_files
@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_file_that_is_no_history_is_called_what_it_is_and_stays(tmp_path, write, named, suffix):
    path = history().save(tmp_path / "h.npy").with_suffix(suffix)
    path.unlink()
    write(path)
    before = as_it_is(path) if path.exists() else None
    with pytest.raises(CourseError, match=named) as refused:
        History.load(tmp_path / "h.npy")
    assert str(path) in str(refused.value) and "delete" not in str(refused.value)
    if named == PYTORCH:
        assert "damaged" not in str(refused.value)
    assert before is None or as_it_is(path) == before


@pytest.mark.parametrize("named", ["h.json", "h.safetensors", "h", ""])
def test_another_name_than_that_of_the_npy_file_is_refused(tmp_path, named):
    path = history().save(tmp_path / "h.npy")
    path.with_suffix(".safetensors").write_bytes(safetensors.torch.save({"x": torch.zeros(2)}))
    with pytest.raises(CourseError, match=r"\.npy|name a file"):
        History.load(tmp_path / named)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_that_an_editor_of_windows_saved_is_read(tmp_path, encoding):
    path = history().save(tmp_path / "h.npy")
    config = path.with_suffix(".json")
    config.write_bytes(config.read_text(encoding="utf-8").encode(encoding))
    assert History.load(path).name == "BinaryNN"


@pytest.mark.parametrize("closed", ["h.npy", "h.json", "."])
def test_a_history_that_another_user_may_not_read_is_not_called_missing_or_damaged(closed):
    with shared_folder() as folder:
        path = history().save(folder / "runs" / "h.npy")
        (path.parent / closed).chmod(0)
        with as_nobody(), pytest.raises(Unreadable, match=r"h\.(npy|json).*QAT_RESULTS_DIR") as refused:
            History.load(path)
        assert not re.search("missing|damaged|delete", str(refused.value))


def test_a_history_of_another_user_is_read_and_may_be_saved_elsewhere():
    with shared_folder() as folder, shared_folder(0o777) as own:
        path = history().save(folder / "h.npy")
        with as_nobody():
            loaded = History.load(path)
            assert len(History.load(loaded.save(own / "h.npy"))) == 3
            with pytest.raises(CourseError, match=r"h\.(npy|json).*QAT_RESULTS_DIR"):
                loaded.save(folder / "h.npy")


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


def test_a_file_that_claims_more_rows_than_it_has_is_damaged(tmp_path):
    path = tmp_path / "BinaryNN.npy"
    path.with_suffix(".json").write_text('{"name": "BinaryNN"}', encoding="utf-8")
    with open(path, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(CourseError, match="damaged") as error:
        History.load(path)
    assert not isinstance(error.value, Unreadable)
