"""Runs on disk: train or load one, find them, compare them in a table."""

import re
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from torch import nn

from . import checkpoints, hardware, settings
from .batches import normalize
from .data import Data
from .errors import CourseError
from .files import write_atomically
from .history import History
from .nets import SCHEMES, build
from .training import Recipe, fit

RECORDED = settings.recorded_dir()  # results/ and checkpoints/ that come with the course

COLUMNS = ("bits", "seed", "data", "hardware")  # what the table of runs needs of a card

# The table that this course grew from: accuracies after 100 epochs of small nets with Brevitas.
ORIGINAL = {"PytorchNN": (0.98, 0.57), "TernaryNN": (0.62, 0.56), "BinaryNN": (0.55, 0.51)}


def run_folder(data_name: str, arch: str) -> Path:
    """Return where the runs of an architecture on a data set are saved; never two data sets in one folder."""
    return settings.results_dir() / data_name / arch


def load_or_train(
    name: str, data: Data, epochs: int, *, arch: str = "convnet", seed: int = 0, recipe: Recipe | None = None
) -> tuple[nn.Module, History]:
    """Return a trained net and its history: loaded if exactly this run was finished before, else trained now.

    Prints a line saying which. Raises CourseError as `build` and `fit` do.
    """
    net = build(name, arch, seed=seed)
    recipe = recipe or net.recipe
    card = planned(net, data, epochs, seed=seed, recipe=recipe)
    files = checkpoints.Files(run_folder(data.name, arch), checkpoints.stem(card))
    history = files.finished(card)
    if history is not None:
        print(f"{name}: loaded from {settings.short(files.weights)}; delete that file to train again")
        return checkpoints.load(files.weights, net.to(card["device"])), history
    print(f"{name}: training for {card['epochs']} epochs on {card['hardware']}")
    return net, fit(net, data, epochs, recipe=recipe, seed=seed, device=card["device"], folder=files.folder)


def planned(net: nn.Module, data: Data, epochs: int, *, seed: int, recipe: Recipe) -> dict:
    """Return the card that a run of `net` on this machine will have."""
    epochs = min(epochs, settings.max_epochs() or epochs)
    device = hardware.best_device()
    return checkpoints.card(net, data, epochs=epochs, seed=seed, device=device, recipe=asdict(recipe))


def recorded_archs(data_name: str = "cifar10") -> list[str]:
    """Return the names of the architectures of which runs come with the course."""
    return sorted(path.name for path in (RECORDED / "results" / data_name).glob("*") if path.is_dir())


def recorded_histories(arch: str, data_name: str = "cifar10", seed: int | None = 0) -> list[History]:
    """Return the histories that come with the course, those of one seed, or of all (None)."""
    histories = find_histories(RECORDED / "results" / data_name / arch)
    return [history for history in histories if seed in (None, history.card["seed"])]


def record(name: str, arch: str, data_name: str = "cifar10", seed: int = 0) -> list[Path]:
    """Put a finished run of yours where those lie that come with the course; return the files.

    Of seed 0 the weights too, packed. Raises CourseError when there is no such run, or it was interrupted, or when the
    packed net does not compute the same; then nothing is written.
    """
    files = checkpoints.Files(run_folder(data_name, arch), checkpoints.stem({"name": name, "seed": seed}))
    history, net = History.load(files.history), checkpoints.load(files.weights)
    if history.name != name or files.finished(history.card) is None:
        raise CourseError(f"{files.history} and {files.weights} are not of one finished run: train to the end first.")
    written = [RECORDED / "results" / data_name / arch / files.history.name]
    if seed == 0:
        written.append(RECORDED / "checkpoints" / data_name / arch / files.weights.name)
        _check_packing(net, history.card)
        checkpoints.save(net, written[1], history.card, packed=True)
    history.save(written[0])
    return written


def _check_packing(net: nn.Module, card: dict) -> None:
    """Raise CourseError unless `net`, packed and unpacked, computes the same logits as it was trained, bit for bit."""
    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with TemporaryDirectory() as folder:
        again = checkpoints.load(checkpoints.save(net, Path(folder) / "packed.safetensors", card, packed=True))
    with torch.autocast("cpu", torch.bfloat16, enabled=card["precision"] == "bf16"):
        same = torch.equal(again(images), net(images))
    if not same:
        raise CourseError(f"{card['name']} does not compute the same once packed: it is not recorded.")


def recorded_history(name: str, arch: str = "convnet", data_name: str = "cifar10", seed: int = 0) -> History:
    """Return one of the histories that come with the course; raises CourseError listing those that there are."""
    histories = {checkpoints.stem(h.card): h for h in recorded_histories(arch, data_name, seed=None)}
    wanted = checkpoints.stem({"name": name, "seed": seed})
    if wanted not in histories:
        raise CourseError(f"No run of {wanted} ({arch}) is recorded; there are: {', '.join(histories) or 'none'}.")
    return histories[wanted]


def recorded_net(name: str, arch: str = "convnet", data_name: str = "cifar10") -> nn.Module:
    """Return a net that comes with the course, trained; raises CourseError listing the names that there are."""
    folder = RECORDED / "checkpoints" / data_name / arch
    names = sorted(path.stem for path in folder.glob("*.safetensors"))
    if name not in names:
        raise CourseError(f"No {name} ({arch}) is recorded; there are: {', '.join(names) or 'none'}.")
    net = checkpoints.load(folder / f"{name}.safetensors")
    if net.name != name:
        raise CourseError(f"{folder / name}.safetensors holds a {net.name}: replace it by a fresh copy.")
    return net


def find_histories(folder: str | Path) -> list[History]:
    """Return the histories in `folder`, in the order of `nets.SCHEMES`, others behind, then by seed; no empty ones."""
    order = list(SCHEMES)
    histories = [_load(path) for path in sorted(Path(folder).glob("*.npy"))]
    return sorted((h for h in histories if len(h)), key=lambda h: ((*order, h.name).index(h.name), h.card["seed"]))


def _load(path: Path) -> History:
    history = History.load(path)
    missing = [key for key in COLUMNS if key not in history.card]
    if missing:
        raise CourseError(f"The card of {path} lacks {', '.join(missing)}: move it to another folder.")
    return history


def table(histories: list[History]) -> pd.DataFrame:
    """Return a row a run: accuracies of the last epoch (0 to 1), epochs, minutes, data set, hardware.

    Raises CourseError when the histories are of several data sets, which no table may mix, or one has no epochs.
    """
    for history in histories:
        if not len(history):
            raise CourseError(f"{history.name} has no epoch to show: its training was stopped in the first one.")
    data = {history.card["data"] for history in histories}
    if len(data) > 1:
        raise CourseError(f"These runs are of {' and '.join(sorted(data))}: compare runs of one data set.")
    rows = [
        {
            "net": history.name,
            "bits": history.card["bits"],
            "kB": history.card.get("kB", float("nan")),
            "train": round(float(history["train_acc"][-1]), 4),
            "test": round(float(history["test_acc"][-1]), 4),
            "epochs": len(history),
            "minutes": round(float(history["seconds"].sum()) / 60, 1),
            "seed": history.card["seed"],
            "data": history.card["data"],
            "hardware": history.card["hardware"],
        }
        for history in histories
    ]
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame(rows).set_index("net").dropna(axis="columns", how="all")  # cards of older runs have no size


def spread(histories: list[History]) -> pd.DataFrame:
    """Return a row a net: its runs, mean and standard deviation (of a sample) of the last epoch's accuracies.

    The deviation of one run is not a number.
    """
    runs = table(histories).groupby("net", sort=False)
    columns = {"runs": runs["test"].count()}
    for kind in ("train", "test"):
        columns |= {kind: runs[kind].mean().round(4), f"{kind} std": runs[kind].std().round(4)}
    return pd.DataFrame(columns)


def markdown(arch: str, data_name: str = "cifar10") -> str:
    """Return the recorded runs of an architecture as a Markdown table: a row a net, mean and deviation over seeds."""
    histories = recorded_histories(arch, data_name, seed=None)
    means, runs = spread(histories), table(histories)
    rows = []
    for name, row in means.iterrows():
        own = runs.loc[[name]]
        cells = [name, own["bits"].iloc[0], int(row["runs"]), own["epochs"].iloc[0]]
        cells += [_mean(row[kind], row[f"{kind} std"]) for kind in ("train", "test")]
        rows.append([*cells, *(["/".join(f"{value:.2f}" for value in ORIGINAL[name])] if arch == "lenet" else [])])
    titles = ["net", "bits", "runs", "epochs", "train", "test", *(["original, train/test"] if arch == "lenet" else [])]
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _mean(mean: float, deviation: float) -> str:
    return f"{mean:.4f}" if deviation != deviation else f"{mean:.4f} ± {deviation:.4f}"  # NaN: of one run


def update_readme(path: Path) -> None:
    """Put today's tables of the recorded runs between their marks in the text at `path`."""
    marks = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
    text = marks.sub(lambda table: f"{table[1]}{markdown(table[2])}\n{table[3]}", path.read_text())
    write_atomically(path, lambda temporary: temporary.write_text(text))


def leaderboard(data_name: str, kilobytes: float = float("inf")) -> pd.DataFrame:
    """Return your own runs on a data set, of all architectures, that are no larger than `kilobytes`, the best first.

    Of packed weights, as in the card. Trained with `Data.validation_split`, their "test" accuracy is one for choosing.
    """
    folders = sorted(path for path in (settings.results_dir() / data_name).glob("*") if path.is_dir())
    histories = [history for folder in folders for history in find_histories(folder)]
    if not histories:
        return pd.DataFrame()
    board = table(histories)[["bits", "kB", "train", "test", "epochs"]]
    board.insert(0, "arch", [history.card["arch"] for history in histories])
    return board[board["kB"] <= kilobytes].sort_values("test", ascending=False)


@torch.no_grad()
def predict(net: nn.Module, images: torch.Tensor, batch_size: int = 1000) -> torch.Tensor:
    """Return the logits (n, 10), on the CPU, of uint8 `images` (n, 3, 32, 32), in eval mode."""
    net.eval()
    device = next(net.parameters()).device
    return torch.cat([net(normalize(part.to(device))).float().cpu() for part in images.split(batch_size)])
