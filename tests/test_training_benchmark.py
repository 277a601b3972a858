import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from qathelpers import results
from qathelpers.analysis import costs
from qathelpers.common import hardware
from qathelpers.nets import build
from qathelpers.training import History
from tools import training_benchmark


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(training_benchmark, "STEPS", 1)
    monkeypatch.setattr(training_benchmark, "BATCH", 8)


def test_both_loops_train_the_same_net(tiny):
    table = training_benchmark.loops(tiny, batch_size=4)
    assert list(table["loop"]) == ["bnn_pynq", "qathelpers"]
    assert (table["images per second"] > 0).all() and table["speedup"][0] == 1


def test_every_scheme_is_compared_with_float(tiny):
    table = training_benchmark.schemes(tiny)
    for _, part in table.groupby("arch"):
        assert list(part["net"]) == list(training_benchmark.SCHEMES)
        assert part.set_index("net").loc["PytorchNN", "relative to float"] == 1
    assert set(table["arch"]) == set(training_benchmark.ARCHS)


def test_a_training_step_costs_three_forward_passes_except_for_the_fixed_stem():
    net = build("PytorchNN")
    macs = costs.layers(net)["MACs"]
    expected = 3 * macs.sum() - 2 * macs["stem.0"]
    assert training_benchmark.flop_per_step(net) / 2 / training_benchmark.BATCH == pytest.approx(expected, rel=0.01)


def test_time_to_an_accuracy_is_when_it_was_first_reached(monkeypatch):
    history = History({"name": "BinaryNN", "arch": "convnet", "hardware": "a laptop"})
    for epoch, accuracy in enumerate((0.5, 0.8, 0.7, 0.9)):
        history.append(epoch=epoch + 1, train_loss=1, train_acc=1, test_loss=1, test_acc=accuracy, seconds=60)
    monkeypatch.setattr(results, "recorded_histories", lambda arch: [history])
    assert training_benchmark.time_to(0.8).iloc[0][["epoch", "minutes"]].tolist() == [2, 2.0]
    never = training_benchmark.time_to(0.95).iloc[0]
    assert np.isnan(never["minutes"])


def test_all_measurements_are_printed_and_written(tiny, tmp_path, capsys):
    tables = training_benchmark.measure_all(tiny.take(train=40), tmp_path / "bench.json")
    written = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert set(tables) <= set(written) and written["hardware"] in capsys.readouterr().out


def test_the_number_of_threads_is_part_of_the_hardware(monkeypatch):
    monkeypatch.setattr(training_benchmark, "measure_all", lambda *_: print(hardware.describe(torch.device("cpu"))))
    threads = torch.get_num_threads()
    try:
        result = CliRunner().invoke(training_benchmark.main, ["--data", "shapes", "--threads", "3"])
    finally:
        torch.set_num_threads(threads)
    assert "3 threads" in result.output


def test_the_loader_is_compared_with_a_dataloader(monkeypatch):
    monkeypatch.setenv("QAT_MAX_IMAGES", "200")
    result = CliRunner().invoke(training_benchmark.main, ["loader", "--data", "shapes"])
    assert result.exit_code == 0, result.output
    assert "Batches" in result.output and "DataLoader" in result.output and "times as fast" in result.output
