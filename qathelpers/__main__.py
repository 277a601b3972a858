"""The course from a terminal: `python -m qathelpers COMMAND`; `--help` lists the commands."""

import os
import sys
from pathlib import Path

import click

from . import bench as benchmarks
from . import checks, hardware, parallel, plots, reproduce, results, settings, sweep, weights
from . import data as datasets
from .errors import MAX_SEED, CourseError
from .nets import ARCHITECTURES, ENDS_SUFFIX, SCHEMES, architecture, build
from .recipe import changed

COURSE_NETS = ("PytorchNN", "TernaryNN", "BinaryNN")


class _Commands(click.Group):
    """Show what a user can mend as a sentence, not as a traceback."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except CourseError as error:
            raise click.ClickException(str(error)) from error


def _known(context: click.Context, parameter: click.Parameter, arch: str) -> str:
    architecture(arch)  # which names what there is
    return arch


ARCH_HELP = f"{' or '.join(ARCHITECTURES)}; convnet-x2 has twice the channels."
arch_option = click.option("--arch", callback=_known, default="convnet", show_default=True, help=ARCH_HELP)
data_option = click.option("--data", type=click.Choice(datasets.NAMES), help="Default: auto, or QAT_DATA.")
seed_option = click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True)
epochs_type = click.IntRange(1)


@click.group(cls=_Commands)
def main() -> None:
    """Train low-bit neural networks on CIFAR-10."""
    parallel.start()
    if parallel.rank():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, of several processes the first one speaks


@main.command()
@click.option("-n", "--epochs", type=epochs_type, prompt="epochs n")
@click.option("--name", type=click.Choice(list(SCHEMES)), prompt="model name", help="Which net.")
@arch_option
@data_option
@seed_option
@click.option("--set", "changes", multiple=True, metavar="SETTING=VALUE", help="Of the recipe; may be repeated.")
def train(epochs: int, name: str, arch: str, data: str | None, seed: int, changes: tuple[str, ...]) -> None:
    """Train one net; asks for the epochs and the name when they are not given."""
    recipe = changed(build(name, arch).recipe, changes)
    net, history = results.load_or_train(name, datasets.load(data), epochs, arch=arch, seed=seed, recipe=recipe)
    print(weights.report(net))
    if weights.quantized_layers(net):
        print("\nThe first layer's quantized weights, first filter:")
        print(weights.quantized(weights.first_layer(net))[0])
    folder = results.run_folder(history.card["data"], arch)
    if len(history) and not parallel.rank():
        _save_plots([history], folder, f"{name}-")


@main.command()
@click.option("-n", "--epochs", type=epochs_type, help="Default: what suits the architecture and the machine.")
@arch_option
@data_option
@seed_option
def run(epochs: int | None, arch: str, data: str | None, seed: int) -> None:
    """Train PytorchNN, TernaryNN and BinaryNN and compare them."""
    loaded = datasets.load(data)
    chosen, fast = architecture(arch), hardware.bf16_is_fast(hardware.best_device())
    epochs = epochs or (chosen.epochs_with_bf16 if fast else chosen.epochs)
    histories = []
    for name in COURSE_NETS:
        net, history = results.load_or_train(name, loaded, epochs, arch=arch, seed=seed)
        print(weights.report(net), end="\n\n")
        histories.append(history)
        if len(history) < history.card["epochs"]:
            raise click.Abort
    _show(histories, results.run_folder(loaded.name, arch))
    print(loaded)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--recorded", is_flag=True, help="The runs that come with the course.")
@arch_option
@click.option("--data", type=click.Choice(datasets.NAMES[1:]), default="cifar10", show_default=True)
def compare(folder: Path | None, recorded: bool, arch: str, data: str) -> None:
    """Print the table of the runs in FOLDER (default: your own) and draw their two plots."""
    folder = folder or (results.RECORDED / "results" / data / arch if recorded else results.run_folder(data, arch))
    histories = results.find_histories(folder)
    if not histories:
        raise CourseError(f"There are no runs in {folder}: run `make run`, or compare --recorded.")
    _show(histories, results.run_folder(data, arch))


@main.command("sweep")
@click.option("-n", "--epochs", type=epochs_type, required=True)
@click.option("--name", "names", type=click.Choice(list(SCHEMES)), multiple=True, required=True, help="Of nets.")
@click.option("--arch", "archs", multiple=True, default=("convnet",), show_default=True, help=ARCH_HELP)
@click.option("--seed", "seeds", type=click.IntRange(0, MAX_SEED), multiple=True, default=(0,), show_default=True)
@click.option("--set", "changes", multiple=True, metavar="SETTING=VALUE", help="Of the recipe.")
@click.option("--workers", type=click.IntRange(1), help="Trainings at a time. Default: one a core.")
@click.option("--scheduler", metavar="ADDRESS", help="Of a Dask cluster that runs already.")
@data_option
def sweep_grid(
    epochs: int,
    names: tuple[str, ...],
    archs: tuple[str, ...],
    seeds: tuple[int, ...],
    changes: tuple[str, ...],
    workers: int | None,
    scheduler: str | None,
    data: str | None,
) -> None:
    """Train every net in every architecture with every seed; options may be repeated, finished runs are skipped."""
    loaded = datasets.load(data)
    jobs = sweep.grid(names, archs, seeds, epochs, loaded.name, changes)
    failed = sweep.run(jobs, loaded, workers, scheduler)
    for arch in archs:
        print(results.table(results.find_histories(results.run_folder(loaded.name, arch))).to_string())
    if failed:
        raise CourseError(f"{len(failed)} of {len(jobs)} trainings failed: the same command goes on with them.")


@main.command()
@click.argument("names", nargs=-1, required=True)
@arch_option
@seed_option
def record(names: tuple[str, ...], arch: str, seed: int) -> None:
    """Put your finished runs of NAMES on CIFAR-10 into data/, beside those that come with the course."""
    for name in names:
        print("saved", *results.record(name, arch, seed=seed))
    results.update_readme(results.RECORDED.parent / "README.md")


@main.command("reproduce")
@click.argument("name")
@arch_option
@seed_option
@click.option("--data", type=click.Choice(datasets.NAMES[1:]), default="cifar10", show_default=True)
def reproduce_run(name: str, arch: str, seed: int, data: str) -> None:
    """Repeat the recorded run of NAME from its card alone and compare the two."""
    recorded = results.recorded_history(name, arch, data, seed)
    again = reproduce.reproduce(recorded.card, results.run_folder(data, arch) / "reproduced")
    print(reproduce.side_by_side(recorded, again).to_string())
    print(reproduce.difference(recorded, again))


@main.command()
@data_option
def data(data: str | None) -> None:
    """Find or download the data, verify it and say what is there."""
    loaded = datasets.load(data)
    print("classes:", ", ".join(loaded.classes))
    print("settings: QAT_DATA_DIR", settings.data_dir() or "not set", "| cache", datasets.cache_file())


@main.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Check versions, device, data and disk; paste what it prints into a bug report."""
    if not checks.environment():
        context.exit(1)


@main.command("notebooks")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def refresh_notebooks(paths: tuple[Path, ...]) -> None:
    """Execute the notebooks at PATHS in place and write their solutions, in solutions/ beside them."""
    from . import notebooks  # not at the top: it brings nbconvert, which no other command needs

    for path in paths:
        print("saved", *notebooks.refresh(path))


@main.command()
def badges() -> None:
    """Write the repository's address, in pyproject.toml, into the notebooks and the README of the checkout."""
    from . import badges  # not at the top: it brings nbformat, which no training needs

    changed = badges.update(settings.course_dir())
    print("saved", *map(settings.short, changed)) if changed else print("all up to date")


@main.group(invoke_without_command=True)
@data_option
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the tables there too.")
@click.pass_context
def bench(context: click.Context, data: str | None, file: Path | None) -> None:
    """Measure training on this machine, side by side in one process: takes two to ten minutes."""
    if context.invoked_subcommand is None:
        from . import bench_training  # not at the top: it brings brevitas_examples, which no other command needs

        bench_training.everything(datasets.load(data), file)


@bench.command("data")
@data_option
def bench_data(data: str | None) -> None:
    """Time `Batches` against a DataLoader with the same augmentation."""
    benchmarks.data(datasets.load(data))


@bench.command("inference")
@arch_option
@data_option
def bench_inference(arch: str, data: str | None) -> None:
    """Time the ways to run a net: PyTorch, ONNX Runtime, OpenVINO; floats, 8 bits, single bits."""
    from . import bench_inference as inference  # not at the top: most commands do without these packages

    inference.everything(datasets.load(data), arch)


@bench.command("sizes")
@arch_option
def bench_sizes(arch: str) -> None:
    """Print how many kilobytes each net takes in each format."""
    from . import bench_inference as inference  # not at the top: most commands do without these packages

    print(inference.sizes([name for name in SCHEMES if ENDS_SUFFIX not in name], arch).to_string(na_rep="-"))


def _show(histories: list, folder: Path) -> None:
    print(results.table(histories).to_string())
    spread = results.spread(histories)
    if (spread["runs"] > 1).any():
        print(spread.to_string(na_rep="one run"))
    seed = min(history.card["seed"] for history in histories)
    _save_plots([history for history in histories if history.card["seed"] == seed], folder)


def _save_plots(histories: list, folder: Path, prefix: str = "") -> None:
    for draw in (plots.accuracy, plots.loss):
        print("saved", plots.save(draw(histories), folder / f"{prefix}{draw.__name__}.png"))
    print("saved", *sorted(folder.glob("*.npy")))


if __name__ == "__main__":
    main(prog_name="python -m qathelpers")
