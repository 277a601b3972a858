import json

import numpy as np
import pytest

from qathelpers import bench, bench_training, costs, results
from qathelpers.history import History
from qathelpers.nets import build


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(bench_training, "STEPS", 1)
    monkeypatch.setattr(bench_training, "BATCH", 8)


def test_ways_take_turns():
    order = []

    def way(name):
        yield order.append(name)

    times = bench.alternate({"a": lambda: way("a"), "b": lambda: way("b")}, repeats=2)
    assert order == ["a", "b", "a", "b"]
    assert [len(values) for values in times.values()] == [2, 2]
    assert bench.medians({"a": [3.0, 1.0, 2.0]}) == {"a": 2.0}


def test_both_loops_train_the_same_net(tiny):
    table = bench_training.loops(tiny, batch_size=4)
    assert list(table["loop"]) == ["bnn_pynq", "qathelpers"]
    assert (table["images a second"] > 0).all() and table["times"][0] == 1


def test_every_scheme_is_compared_with_float(tiny):
    table = bench_training.schemes(tiny)
    for _, part in table.groupby("arch"):
        assert list(part["net"]) == list(bench_training.SCHEMES)
        assert part.set_index("net").loc["PytorchNN", "to float"] == 1
    assert set(table["arch"]) == set(bench_training.ARCHS)


def test_a_training_step_is_three_times_a_forward_one_but_for_the_fixed_stem():
    net = build("PytorchNN")
    macs = costs.layers(net)["MACs"]
    expected = 3 * macs.sum() - 2 * macs["stem.0"]
    assert bench_training._flop(net) / 2 / bench_training.BATCH == pytest.approx(expected, rel=0.01)


def test_time_to_an_accuracy_is_when_it_was_first_reached(monkeypatch):
    history = History({"name": "BinaryNN", "arch": "convnet", "hardware": "a laptop"})
    for epoch, accuracy in enumerate((0.5, 0.8, 0.7, 0.9)):
        history.append(epoch=epoch + 1, train_loss=1, train_acc=1, test_loss=1, test_acc=accuracy, seconds=60)
    monkeypatch.setattr(results, "recorded_histories", lambda arch: [history])
    assert bench_training.time_to(0.8).iloc[0][["epoch", "minutes"]].tolist() == [2, 2.0]
    never = bench_training.time_to(0.95).iloc[0]
    assert np.isnan(never["minutes"])


def test_everything_is_printed_and_written(tiny, tmp_path, capsys):
    tables = bench_training.everything(tiny.take(train=40), tmp_path / "bench.json")
    written = json.loads((tmp_path / "bench.json").read_text())
    assert set(tables) <= set(written) and written["hardware"] in capsys.readouterr().out
