import statistics

import pytest

from qathelpers import results
from qathelpers.common.errors import CourseError
from qathelpers.results import recorded
from qathelpers.training import History


def history(name, data="shapes", accuracy=0.5, **config):
    """Return a history of two epochs with this accuracy in the last one."""
    defaults = {"name": name, "arch": "lenet", "bits": "W1A32", "data": data, "seed": 0, "hardware": "a laptop"}
    result = History(defaults | {"evaluation": "fp32", "epochs": 2} | config)
    for epoch, test_acc in enumerate((0.9, accuracy)):
        result.append(epoch=epoch + 1, train_loss=1, train_acc=0.6, test_loss=1, test_acc=test_acc, seconds=30)
    return result


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Return a function that adds histories to the recorded runs, of which there are none at first."""
    monkeypatch.setattr(recorded, "RECORDED", tmp_path / "data")

    def record(*histories):
        for number, item in enumerate(histories):
            folder = tmp_path / "data" / "results" / item.config["data"] / item.config["arch"]
            item.save(folder / f"{number}.npy")

    return record


def test_the_table_shows_the_last_epoch_not_the_best():
    row = results.table([history("BinaryNN", accuracy=0.51)]).loc["BinaryNN"]
    assert (row["train"], row["test"], row["epochs"], row["minutes"]) == (0.6, 0.51, 2, 1.0)
    assert (row["hardware"], row["data"], row["evaluated in"]) == ("a laptop", "shapes", "fp32")


def test_the_table_shows_the_accuracy_of_the_saved_weights_if_it_is_known():
    runs = [
        history("BinaryNN", accuracy=0.5, evaluation="bf16", test_acc=0.55),
        history("TernaryNN", accuracy=0.6, evaluation="bf16"),
    ]
    table = results.table(runs)
    assert table["test"].to_dict() == {"BinaryNN": 0.55, "TernaryNN": 0.6}
    assert table["evaluated in"].to_dict() == {"BinaryNN": "fp32", "TernaryNN": "bf16"}


def test_a_table_of_no_runs_is_empty():
    assert results.table([]).empty


def test_runs_on_two_data_sets_are_never_in_one_table():
    runs = [history("BinaryNN"), history("TernaryNN", data="cifar10")]
    for compare in (results.table, results.summarize):
        with pytest.raises(CourseError, match=r"cifar10.*shapes"):
            compare(runs)


def test_several_runs_of_a_net_have_a_mean_and_a_deviation():
    runs = [history("BinaryNN", accuracy=0.5), history("BinaryNN", accuracy=0.6), history("TernaryNN", accuracy=0.7)]
    summary = results.summarize(runs)
    assert summary.loc["BinaryNN", ["runs", "train", "test", "test std"]].tolist() == [2, 0.6, 0.55, 0.0707]
    assert summary.loc["TernaryNN", "runs"] == 1 and summary["test std"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("runs", "precision", "accuracies"),
    [
        # Every run has weights, which were evaluated again in fp32.
        ([("bf16", 0.5, 0.6), ("bf16", 0.7, 0.85)], "fp32", (0.6, 0.85)),
        # Only one run has weights, but the last epochs of both were evaluated in bf16.
        ([("bf16", 0.5, 0.6), ("bf16", 0.7, None)], "bf16", (0.5, 0.7)),
        # The last epoch of one run was evaluated in fp32, and so were the weights of the other one.
        ([("bf16", 0.5, 0.6), ("fp32", 0.7, None)], "fp32", (0.6, 0.7)),
        ([("fp32", 0.5, 0.5), ("fp32", 0.7, 0.7)], "fp32", (0.5, 0.7)),
        ([("bf16", 0.5, None), ("bf16", 0.7, None)], "bf16", (0.5, 0.7)),
        # The runs have no precision in common: the accuracies are those of `table`, and both precisions are named.
        ([("bf16", 0.5, None), ("fp32", 0.7, 0.85)], "bf16 and fp32", (0.5, 0.85)),
    ],
)
def test_accuracies_of_a_row_are_evaluated_in_one_precision_if_possible(runs, precision, accuracies):
    histories = [
        history("BinaryNN", accuracy=last, evaluation=evaluation, **({"test_acc": weights} if weights else {}))
        for evaluation, last, weights in runs
    ]
    row = results.summarize(histories).loc["BinaryNN"]
    assert (row["evaluated in"], row["runs"]) == (precision, 2)
    expected = statistics.mean(accuracies), statistics.stdev(accuracies)
    assert (row["test"], row["test std"]) == pytest.approx(expected, abs=1e-4)


def test_the_markdown_table_has_one_row_per_net(record):
    record(
        history("PytorchNN", "cifar10", 0.5, arch="convnet", evaluation="bf16", test_acc=0.52),
        history("PytorchNN", "cifar10", 0.6, arch="convnet", evaluation="bf16", seed=1),
        history("BinaryNN", "cifar10", 0.7, arch="convnet"),
    )
    lines = results.markdown("convnet").splitlines()
    titles, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    several, single = (dict(zip(titles, row, strict=True)) for row in rows)
    assert (several["net"], single["net"]) == ("PytorchNN", "BinaryNN")
    assert (several["runs"], several["test"], several["evaluated in"]) == ("2", "0.5500 ± 0.0707", "bf16")
    assert several["recorded weights, fp32"] == "0.5200"
    assert (single["runs"], single["test"], single["train"]) == ("1", "0.7000", "0.6000")  # no deviation


def test_the_markdown_table_of_lenet_shows_the_original_experiment(record):
    record(*(history(name, "cifar10") for name in results.ORIGINAL))
    lines = results.markdown("lenet").splitlines()[2:]
    for line, values in zip(lines, results.ORIGINAL.values(), strict=True):
        assert all(f"{value:.2f}" in line for value in values)


def test_the_leaderboard_has_the_runs_within_the_budget_the_best_first():
    assert results.leaderboard("shapes").empty
    sizes = {"PytorchNN": 250.0, "TernaryNN": 20.0, "BinaryNN": 15.0}
    for (name, size), accuracy in zip(sizes.items(), (0.9, 0.6, 0.7), strict=True):
        history(name, accuracy=accuracy, kB=size).save(results.run_folder("shapes", f"arch{name}") / f"{name}.npy")
    board = results.leaderboard("shapes", 100)
    assert list(board.index) == ["BinaryNN", "TernaryNN"] and board["arch"].iloc[0] == "lenet"
    assert list(results.leaderboard("shapes").index) == ["PytorchNN", "BinaryNN", "TernaryNN"]
    assert results.leaderboard("cifar10").empty


def test_accuracy_on_validation_images_is_never_called_test_accuracy():
    tested = history("PytorchNN", accuracy=0.6, kB=10.0)
    validated = history("BinaryNN", accuracy=0.7, kB=10.0, evaluated_on="validation")
    assert "validation" in validated.last_line() and "test" not in validated.last_line()
    for table in (results.table([validated]), results.summarize([validated])):
        assert table["validation"].item() == pytest.approx(0.7) and "test" not in table.columns
    for compare in (results.table, results.summarize):
        with pytest.raises(CourseError, match="BinaryNN"):
            compare([tested, validated])
    for run in (tested, validated):
        run.save(results.run_folder("shapes", "lenet") / f"{run.name}.npy")
    board = results.leaderboard("shapes")
    assert list(board.index) == ["BinaryNN", "PytorchNN"]
    assert board["validation"].notna().tolist() == [True, False] and board["test"].notna().tolist() == [False, True]


def test_without_recorded_runs_the_table_has_no_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "RECORDED", tmp_path)
    assert results.summarize([]).empty
    assert len(results.markdown("lenet", "shapes").splitlines()) == 2
