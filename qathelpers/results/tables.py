"""Tables of runs. A table never contains runs on different data sets."""

import os

import pandas as pd

from ..common import settings
from ..common.errors import CourseError
from ..common.files import files_in
from ..training.history import History, by_net, check_histories, check_one_data_set, same_evaluation
from .recorded import recorded_histories
from .runs import find_histories

# The table that this course grew from: training and test accuracy of small Brevitas nets after 100 epochs.
ORIGINAL = {"PytorchNN": (0.98, 0.57), "TernaryNN": (0.62, 0.56), "BinaryNN": (0.55, 0.51)}


def table(histories: list[History]) -> pd.DataFrame:
    """Return one row per run: accuracies from 0 to 1, epochs, minutes, data set, hardware.

    `test` is the accuracy of the trained weights on the test images; the column is called `validation` if the runs were
    trained with `Dataset.validation_split`. `evaluated in` is the precision of this
    evaluation: fp32, or bf16 for older runs whose weights were not kept.

    Raises:
        CourseError: If the runs are on several data sets, if only some were evaluated on validation images, or if one
            of them has no epochs.
    """
    check_histories(histories)
    for history in histories:
        if not len(history):
            raise CourseError(f"{history.name} has no epoch to show: its training was stopped in the first one.")
    check_one_data_set(histories)
    rows = [
        {
            "net": history.name,
            "bits": history.config["bits"],
            "kB": history.config.get("kB", float("nan")),
            "train": round(float(history["train_acc"][-1]), 4),
            history.held_out: round(history.test_acc, 4),
            "evaluated in": history.evaluation,
            "epochs": len(history),
            "minutes": round(float(history["seconds"].sum()) / 60, 1),
            "seed": history.config["seed"],
            "data": history.config["data"],
            "hardware": history.config["hardware"],
        }
        for history in histories
    ]
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame(rows).set_index("net").dropna(axis="columns", how="all")  # the oldest runs have no size


def summarize(histories: list[History]) -> pd.DataFrame:
    """Return one row per net: number of runs, mean and (sample) standard deviation of the accuracies.

    If there is a precision in which all runs of a net were evaluated, the test accuracies of its row are those in this
    precision: in fp32 if possible, else in bf16 (for older runs whose weights were not kept). The deviation of a single
    run is NaN.

    Raises:
        CourseError: In the cases that `table` names.
    """
    table(histories)  # raises if they cannot be compared
    rows = []
    for name, runs in by_net(histories).items():
        evaluation, accuracies = same_evaluation(runs)
        test = pd.Series(accuracies)
        train = pd.Series([history["train_acc"][-1] for history in runs])
        row = {"net": name, "runs": len(test), "train": train.mean(), "train std": train.std()}
        held_out = runs[0].held_out
        rows.append(row | {held_out: test.mean(), f"{held_out} std": test.std(), "evaluated in": evaluation})
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame(rows).set_index("net").round(4)


def markdown(arch: str, data_name: str = "cifar10") -> str:
    """Return the recorded runs of an architecture as a Markdown table.

    Each net has one row, with the mean and the deviation over the seeds, and the accuracy of the recorded weights.
    """
    histories = recorded_histories(arch, data_name, seed=None)
    summary, recorded = summarize(histories), {h.name: h for h in histories if h.config["seed"] == 0}
    weights = {name: f"{h.test_acc:.4f}" for name, h in recorded.items() if h.evaluation == "fp32"}
    titles = ["net", "bits", "epochs", "runs", "train", "test", "evaluated in", "recorded weights, fp32"]
    rows = []
    for name, row in summary.iterrows():
        config = (recorded.get(name) or next(h for h in histories if h.name == name)).config
        cells = [name, config["bits"], config["epochs"], row["runs"]]
        cells += [_mean(row[kind], row[f"{kind} std"]) for kind in ("train", "test")]
        rows.append([*cells, row["evaluated in"], weights.get(name, "not kept")])
    if arch == "lenet":
        titles.append("original, train/test")
        for cells in rows:
            cells.append("/".join(f"{value:.2f}" for value in ORIGINAL.get(cells[0], ())) or "none")
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _mean(mean: float, deviation: float) -> str:
    return f"{mean:.4f}" if deviation != deviation else f"{mean:.4f} ± {deviation:.4f}"  # NaN for a single run


def leaderboard(data_name: str, kilobytes: float = float("inf")) -> pd.DataFrame:
    """Return your own runs whose packed nets have at most `kilobytes` kB, the best run first.

    Runs that were trained with `Dataset.validation_split` have their accuracy in the column `validation`, the others in
    the column `test`.
    """
    folders = [path for path in files_in(settings.results_dir() / data_name, "") if os.path.isdir(path)]
    runs = [(history, folder.name) for folder in folders for history in find_histories(folder)]
    if not runs:
        return pd.DataFrame()
    boards = []
    for held_out in ("validation", "test"):
        own = [(history, folder) for history, folder in runs if history.held_out == held_out]
        if own:
            board = table([history for history, _ in own]).reindex(columns=["bits", "kB", "train", held_out, "epochs"])
            board.insert(0, "arch", [history.config.get("arch", folder) for history, folder in own])
            boards.append(board.assign(accuracy=board[held_out]))
    board = pd.concat(boards).sort_values("accuracy", ascending=False).drop(columns="accuracy")
    return board[board["kB"] <= kilobytes]
