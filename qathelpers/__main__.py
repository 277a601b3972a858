"""The course from a terminal: `qat COMMAND`, or `python -m qathelpers COMMAND`; `qat --help` lists the commands."""

import glob
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import click
import torch
from torch import nn

from . import check_environment
from .analysis import plots
from .common import distributed, hardware, settings
from .common.errors import MAX_SEED, CourseError, sentence
from .data.cifar10 import NAMES, cache_file, load
from .nets import weights
from .nets.architectures import ARCHITECTURES, architecture, build
from .nets.recipe import changed
from .nets.schemes import FIRST_LAST_SUFFIX, SCHEMES
from .results import reproduce, sweep
from .results.recorded import RECORDED, recorded_history, recorded_net
from .results.runs import find_histories, load_or_train, plan, run_folder
from .results.tables import summarize, table
from .training import checkpoint, overwriting
from .training.history import History
from .training.run import run_name
from .training.schema import MAX_EPOCHS

COURSE_NETS = ("PytorchNN", "TernaryNN", "BinaryNN")

# The epochs for which `qat run` trains each net by default: on a CPU without bf16, and on a CPU with it or a GPU. These
# numbers are time budgets; for their best accuracy, nets need more epochs. On two CPU cores, ten minutes are enough for
# all three convnets, or for one sharpnet with fast bf16. The lenets are trained for as many epochs as in the original
# experiment.
EPOCHS = {"lenet": (100, 100), "convnet": (5, 10), "sharpnet": (14, 14)}


INTERRUPTED = 130  # the exit status of a command that Ctrl-C has ended


class ShowsErrors:
    """Makes a click command show errors that are no mistake in its code as one sentence, without a traceback."""

    def invoke(self, context: click.Context) -> object:
        try:
            result = super().invoke(context)
            sys.stdout.flush()  # here, a full disk is still reported; when Python ends, it would be a traceback
            return result
        except BrokenPipeError:
            raise  # the reader of a pipe, such as `head`, has enough; click ends without a message
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as error:
            text = sentence(error)
            if text is None:
                raise
            raise click.ClickException(text) from error


class Group(ShowsErrors, click.Group):
    """A group of click commands that report a mistake of their user in one sentence."""


def _check_arch(context: click.Context, parameter: click.Parameter, arch: str) -> str:
    architecture(arch)  # raises a CourseError that lists the architectures
    return arch


def _data_option(names: tuple[str, ...], **options):
    return click.option("--data", "data_name", type=click.Choice(names), **options)


ARCH_HELP = f"{', '.join(ARCHITECTURES)}; convnet-x2 has twice the channels."
SCHEDULER_HELP = (
    "Use the Dask cluster whose scheduler has this address. Everyone who can reach it can run code on its workers, "
    "unless it uses TLS."
)
SET_HELP = "Change a setting of the recipe; may be repeated."
REAL_NAMES = tuple(name for name in NAMES if name != "auto")
arch_option = click.option("--arch", callback=_check_arch, default="convnet", show_default=True, help=ARCH_HELP)
data_option = _data_option(NAMES, help="Default: QAT_DATA, or auto.")
recorded_data_option = _data_option(REAL_NAMES, default="cifar10", show_default=True)
seed_option = click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True)
set_option = click.option("--set", "changes", multiple=True, metavar="SETTING=VALUE", help=SET_HELP)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace runs that have other settings.")
epochs_type = click.IntRange(1, MAX_EPOCHS)


@click.group(cls=Group)
def main() -> None:
    """Train low-bit neural networks on CIFAR-10."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the user has closed it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(getattr(sys, name), "reconfigure"):
            # Windows writes to files and pipes in an old encoding, which may lack a character of a path.
            getattr(sys, name).reconfigure(errors="backslashreplace")
    distributed.init()
    if distributed.rank():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, stays open: only process 0 prints


@main.command("train")
@click.option("-n", "--epochs", type=epochs_type, prompt="epochs n", help="Number of epochs.")
@click.option("--name", type=click.Choice(list(SCHEMES)), prompt="model name", help="The net to train.")
@arch_option
@data_option
@seed_option
@set_option
@overwrite_option
def train_command(
    epochs: int, name: str, arch: str, data_name: str | None, seed: int, changes: tuple[str, ...], overwrite: bool
) -> None:
    """Train one net; ask for the number of epochs and the name if they are not given.

    A finished run with the same settings is loaded. With more epochs, the net is trained again from the beginning. A
    finished run with other settings or more epochs, or an interrupted run with other settings, is replaced only with
    --overwrite.
    """
    recipe = changed(build(name, arch).spec.recipe, changes)
    options = {"arch": arch, "seed": seed, "recipe": recipe, "overwrite": overwrite}
    net, history = load_or_train(name, load(data_name), epochs, **options)
    _print_levels(net)
    if weights.quantized_layers(net):
        print("\nFirst filter of the first layer, quantized:")
        print(weights.quantized(weights.first_layer(net))[0])
    folder = run_folder(history.config["data"], arch)
    if len(history) and not distributed.rank():
        _save_plots([history], folder, f"{name}-")
        print("saved", *sorted(folder.glob(f"{glob.escape(run_name(name, seed))}.*")))
    _check_not_interrupted(history)


@main.command("run")
@click.option("-n", "--epochs", type=epochs_type, help="Default: depends on the architecture and on this machine.")
@arch_option
@data_option
@seed_option
@overwrite_option
def run_command(epochs: int | None, arch: str, data_name: str | None, seed: int, overwrite: bool) -> None:
    """Train PytorchNN, TernaryNN and BinaryNN, and compare them."""
    dataset = load(data_name)
    epochs = epochs or _default_epochs(arch)
    histories = []
    for name in COURSE_NETS:  # before the first training
        overwriting.check(plan(name, dataset, epochs, arch=arch, seed=seed)[1], overwrite)
    for name in COURSE_NETS:
        net, history = load_or_train(name, dataset, epochs, arch=arch, seed=seed, overwrite=overwrite)
        _print_levels(net)
        print()
        histories.append(history)
        _check_not_interrupted(history)
    _compare(histories, run_folder(dataset.name, arch))
    print(dataset)


@main.command("compare")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--recorded", is_flag=True, help="Compare the runs that come with the course.")
@arch_option
@recorded_data_option
def compare_command(folder: Path | None, recorded: bool, arch: str, data_name: str) -> None:
    """Print a table of the runs in FOLDER (default: your own runs) and draw their accuracy and loss.

    The plots are saved beside the runs, but those of the runs that come with the course in your results folder, in
    recorded/.
    """
    own = run_folder(data_name, arch)
    folder = folder or (RECORDED / "results" / data_name / arch if recorded else own)
    try:
        folder = folder.resolve()
    except (OSError, ValueError) as error:
        raise CourseError(f"{str(folder)[:80]!r} is not the name of a folder ({error}).") from error
    histories = find_histories(folder)
    if not histories:
        raise CourseError(f"There are no runs in {folder}: train some with `qat run`, or use --recorded.")
    of_the_course = folder.is_relative_to(RECORDED)
    _compare(histories, settings.results_dir() / "recorded" / data_name / arch if of_the_course else folder)


@main.command("sweep")
@click.option("-n", "--epochs", type=epochs_type, required=True, help="Number of epochs of each training.")
@click.option("--name", "names", type=click.Choice(list(SCHEMES)), multiple=True, required=True, help="Net to train.")
@click.option("--arch", "archs", multiple=True, default=("convnet",), show_default=True, help=ARCH_HELP)
@click.option("--seed", "seeds", type=click.IntRange(0, MAX_SEED), multiple=True, default=(0,), show_default=True)
@set_option
@click.option(
    "--workers", type=click.IntRange(1), help="Number of trainings at a time. Default: one per GPU, or one per core."
)
@click.option("--scheduler", metavar="ADDRESS", help=SCHEDULER_HELP)
@data_option
@overwrite_option
def sweep_command(
    epochs: int,
    names: tuple[str, ...],
    archs: tuple[str, ...],
    seeds: tuple[int, ...],
    changes: tuple[str, ...],
    workers: int | None,
    scheduler: str | None,
    data_name: str | None,
    overwrite: bool,
) -> None:
    """Train every net in every architecture with every seed; finished runs are skipped.

    The options --name, --arch, --seed and --set may be repeated.
    """
    dataset = load(data_name)
    jobs = sweep.grid(names, archs, seeds, epochs, dataset.name, changes)
    failed = sweep.run(jobs, dataset, workers, scheduler, overwrite)
    for arch in archs:
        print(table(find_histories(run_folder(dataset.name, arch))).to_string())
    if failed:
        raise CourseError(f"{len(failed)} of {len(jobs)} trainings failed: repeat the command to continue them.")


@main.command("reproduce")
@click.argument("name")
@arch_option
@seed_option
@recorded_data_option
def reproduce_command(name: str, arch: str, seed: int, data_name: str) -> None:
    """Repeat the recorded run of the net NAME from its config, and compare the two runs."""
    recorded = recorded_history(name, arch, data_name, seed)
    again = reproduce.reproduce(recorded.config, run_folder(data_name, arch) / "reproduced")
    print(reproduce.side_by_side(recorded, again).to_string())
    print(reproduce.difference(recorded, again))
    _check_not_interrupted(again)


@main.command("lab")
def lab_command() -> None:
    """Open the notebooks of the course in JupyterLab."""
    notebooks = settings.course_dir() / "notebooks"
    if not notebooks.is_dir():
        raise CourseError(
            f"{notebooks} is missing: run `qat lab` in the folder of the course, which has the notebooks."
        )
    if importlib.util.find_spec("jupyterlab") is None:
        raise CourseError(
            'JupyterLab is not installed: run `python -m pip install -e ".[lab]"` in the course\'s folder.'
        )
    sys.exit(subprocess.run([sys.executable, "-m", "jupyterlab", str(notebooks)]).returncode)  # noqa: S603, the command is ours


@main.command("data")
@data_option
def data_command(data_name: str | None) -> None:
    """Find or download the data, verify it, and print a description."""
    dataset = load(data_name)
    print("classes:", ", ".join(dataset.classes))
    print("settings: QAT_DATA_DIR", settings.data_dir() or "not set", "| cache", cache_file())


@main.command("check")
@click.pass_context
def check_command(context: click.Context) -> None:
    """Check versions, device, data and disk; paste the output into a bug report."""
    if not check_environment():
        context.exit(1)


@main.group("bench")
def bench_group() -> None:
    """Measure how large and how fast trained nets are on this machine."""


@bench_group.command("inference")
@arch_option
@data_option
def bench_inference_command(arch: str, data_name: str | None) -> None:
    """Time float, 8-bit and 1-bit nets in PyTorch, ONNX Runtime, OpenVINO and C."""
    from .deploy import benchmark  # not at the top: the other commands do not need its packages

    benchmark.everything(load(data_name), arch)


@bench_group.command("sizes")
@arch_option
def bench_sizes_command(arch: str) -> None:
    """Print the size of each net in each file format, in kilobytes."""
    from .deploy import benchmark  # not at the top: the other commands do not need its packages

    names = [name for name in SCHEMES if FIRST_LAST_SUFFIX not in name]
    print(benchmark.sizes(names, arch).to_string(na_rep="-"))


EXPORT_FORMATS = ("c", "qcdq", "qonnx", "int8", "openvino")


@main.command("export")
@click.argument("net")
@arch_option
@seed_option
@click.option("--format", type=click.Choice(EXPORT_FORMATS), required=True, help="See docs/terminal.md.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The file to write. Default: a file in the current folder, named after the net.",
)
@click.option("--floats", is_flag=True, help="The file takes normalized floats, not bytes. FINN and hls4ml need this.")
@click.option("--fast", is_flag=True, help="Allow the runtime to round more. Faster, but some predictions change.")
@click.option(
    "--batch",
    type=click.IntRange(1),
    help="The number of images that an ONNX file takes. Default: any number (qcdq), one (qonnx).",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@click.pass_context
def export_command(
    context: click.Context,
    net: str,
    arch: str,
    seed: int,
    format: str,
    out: Path | None,
    floats: bool,
    fast: bool,
    batch: int | None,
    overwrite: bool,
) -> None:
    """Export a trained net to a file for another program.

    NET is the name of a net that comes with the course, such as TernaryNN, or a .safetensors file, such as one that
    `qat train` wrote. The exported file takes images as bytes. Its metadata (in a C file, the comment at the start)
    describe the input.
    """
    from .deploy import export  # not at the top: the other commands do not need its packages

    is_file = net.endswith(".safetensors")
    for option in ("arch", "seed"):
        if is_file and context.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT:
            raise CourseError(f"{net} is a file with a single net: leave out --{option}.")
    kind = export.FORMATS[format]
    name = Path(net).stem if is_file else f"{run_name(net, seed)}-{arch}"
    path = out or Path(f"{name}-{format}.onnx" if kind.suffix == ".onnx" else name + kind.suffix)
    export.check(format, path, floats=floats, fast=fast, batch=batch)
    for file in export.files_of(format, path):
        if file.exists() and not overwrite:
            raise CourseError(f"{file} exists already: name another file with -o, or replace it with --overwrite.")
    config = checkpoint.read_config(net) if is_file else {"data": "cifar10"}
    exported = checkpoint.load(net) if is_file else recorded_net(net, arch, seed=seed)

    def images() -> torch.Tensor:
        if config.get("data") not in REAL_NAMES:
            raise CourseError(
                f"The format int8 needs some of the images that {net} was trained on: call int8_export.export_int8 in "
                "Python, and pass these images."
            )
        return load(config["data"]).train_images

    paths = export.export(exported, format, path, floats, fast, batch, images)
    sizes = ", ".join(f"{file} ({file.stat().st_size / 1000:.0f} kB)" for file in paths)
    print(f"{exported.spec.name} ({exported.spec.arch}): saved {sizes}")
    print(f"Runs in: {kind.runs_in}")


@main.command("demo")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/demo/index.html"), show_default=True)
@click.option("--serve", is_flag=True, help="Serve the page over HTTP after building it.")
@click.option("--address", default="127.0.0.1", show_default=True, help="0.0.0.0 lets other devices open the page.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 chooses a free port.")
def demo_command(out: Path, serve: bool, address: str, port: int) -> None:
    """Build a web page that runs three low-bit nets; open its file in a browser, no network is needed."""
    from .deploy import demo  # not at the top: the other commands do not need it

    path = demo.build(out)
    print(f"saved {path}, {path.stat().st_size / 1000:.0f} kB: open it in a browser")
    if serve:
        demo.serve(path, address, port)


def _default_epochs(arch: str) -> int:
    normal, on_fast_device = EPOCHS.get(arch.partition("-x")[0], EPOCHS["convnet"])
    return on_fast_device if hardware.is_fast(hardware.best_device()) else normal


def _print_levels(net: nn.Module) -> None:
    report = weights.report(net)
    if report.empty:
        print(f"{net.spec.name} has no quantized weights: its layers compute with 32-bit floats.")
        return
    print(f"{net.spec.name}, levels of the quantized weights:")
    print(report.to_string(formatters={"weights": "{:,}".format, "zeros": "{:.0%}".format}))
    for warning in weights.warnings(net):
        print(warning)


def _compare(histories: list[History], folder: Path) -> None:
    print(table(histories).to_string())
    summary = summarize(histories)
    if (summary["runs"] > 1).any():
        print(summary.to_string(na_rep="one run"))
    seed = min(history.config["seed"] for history in histories)
    _save_plots([history for history in histories if history.config["seed"] == seed], folder)


def _save_plots(histories: list[History], folder: Path, prefix: str = "") -> None:
    for draw in (plots.accuracy, plots.loss):
        print("saved", plots.save(draw(histories), folder / f"{prefix}{draw.__name__}.png"))


def _check_not_interrupted(history: History) -> None:
    """End the command with the exit status of an interruption if the training was interrupted."""
    if len(history) < history.config["epochs"]:
        raise click.exceptions.Exit(INTERRUPTED)


if __name__ == "__main__":
    main(prog_name="qat")
