"""Kill commands at random moments, run them again, and count what is lost.

    python -m tests.faults crash-only --kills 100 --seed 0

Each trial prepares a folder, starts a command, kills it with SIGKILL at a random moment, looks at what is on disk, and
runs the same command again. The second run must succeed, and its result must be that of an undisturbed run.
`test_crash_only.py` does the same with fewer kills.

The commands run in processes that are forked from one that has imported PyTorch but computed nothing, because starting
Python takes longer than these commands.
"""

import contextlib
import io
import itertools
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import click
import psutil
import torch

from qathelpers.__main__ import main as qat
from qathelpers.common.errors import CourseError
from qathelpers.results import find_histories, recorded, table
from qathelpers.training import History, checkpoint
from tools import record as recorder

SETTINGS = {"QAT_DATA": "shapes", "QAT_MAX_IMAGES": "64", "OMP_NUM_THREADS": "1"}
PLACE = Path("shapes", "lenet")
NETS = ("BinaryNN", "TernaryNN")
OPTIONS = ("--arch", "lenet", "--set", "batch_size=32")
COLUMNS = ("epoch", "train_loss", "train_acc", "test_loss", "test_acc")
PAGE = "# Results\n<!-- results: lenet -->\nold\n<!-- end -->\n"
# What Python prints in a process whose parent is killed before it has said what the process is for.
UNBORN = re.compile(r"Traceback[^\n]*\n(?:  [^\n]*\n)*?[^\n]*in spawn_main\n(?:  [^\n]*\n)*EOFError: Ran out of input")
MINUTES = 10  # after which a command is said to hang


def names(args):
    return [value for option, value in itertools.pairwise(args) if option == "--name"]


@dataclass(frozen=True)
class Command:
    """What is killed.

    Args:
        kind: "train", "sweep" or "record".
        args: Its arguments.
        before: The arguments of commands that run undisturbed before it, as pairs of kind and arguments.
        victims: What may be killed: "all" processes, the "main" process, or a "worker".
    """

    kind: str
    args: tuple[str, ...]
    before: tuple[tuple[str, tuple[str, ...]], ...] = ()
    victims: tuple[str, ...] = ("all",)


def training(kind, epochs, *nets):
    return kind, (kind, "-n", str(epochs), *(part for net in nets for part in ("--name", net)), *OPTIONS)


RECORD = ("record", (*NETS, "--arch", "lenet", "--replace"))
SWEEP = ("sweep", (*training("sweep", 12, *NETS)[1], "--workers", "2"))
COMMANDS = {
    "train": [
        Command(*training("train", 8, "TernaryNN")),
        Command(*training("train", 8, "TernaryNN"), before=(training("train", 3, "TernaryNN"),)),
    ],
    "record": [
        Command(*RECORD, before=tuple(training("train", 2, net) for net in NETS)),
        Command(
            *RECORD,
            before=(
                *(training("train", 2, net) for net in NETS),
                RECORD,
                *(training("train", 3, net) for net in NETS),
            ),
        ),
    ],
    "sweep": [Command(*SWEEP, victims=("all", "main", "worker"))],
}


# What runs in the forked processes


def execute(kind, args, folder):
    """Run a command in a session of its own, with its files in `folder`; its output goes to the file `log`."""
    os.setsid()
    with open(folder / "log", "ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    for variable in [name for name in os.environ if name.startswith("QAT_")]:
        del os.environ[variable]
    os.environ.update(SETTINGS | {"QAT_RESULTS_DIR": str(folder / "runs"), "TMPDIR": str(folder / "tmp")})
    tempfile.tempdir = None
    torch.set_num_threads(1)
    if kind == "record":
        use_checkout(folder / "checkout")
    (recorder.main if kind == "record" else qat)(list(args), prog_name=kind)


def use_checkout(root):
    """Let `tools.record` record runs on shapes in the checkout `root`."""
    prepare, markdown = recorder.prepare, recorder.results.markdown
    recorder.commands.CHECKOUT, recorder.RESULTS, recorded.RECORDED = root, root / "README.md", root / "data"
    recorder.picture.update = lambda root: []  # the picture shows runs on CIFAR-10 only
    recorder.prepare = lambda name, arch, **options: prepare(name, arch, "shapes", target=root / "data", **options)
    recorder.results.markdown = lambda arch: markdown(arch, "shapes")


# What the process does that counts


@dataclass
class Tally:
    """What came of the trials of one command."""

    kills: int = 0
    counts: Counter = field(default_factory=Counter)
    seconds: float = 0.0

    def note(self, kind, text):
        """Count a fault; `kind` is one of `FAULTS`."""
        self.counts[kind] += 1
        print(f"  {kind}: {text}", flush=True)


FAULTS = ("losses", "tracebacks", "wrong results", "refusals", "damaged", "leftovers", "hangs")


class Trials:
    """Trials of one command, each in a folder of its own inside `folder`."""

    def __init__(self, command, folder, tally):
        self.command, self.folder, self.tally = command, folder, tally
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.faults.crash_only"])
        self.ready = self._prepared(folder / "ready")
        self.reference = self._copy("reference")
        started = time.monotonic()
        assert self._run(self.reference) == 0, (self.reference / "log").read_text(encoding="utf-8")
        self.length = time.monotonic() - started

    def _prepared(self, folder):
        (folder / "tmp").mkdir(parents=True)
        (folder / "checkout" / "data").mkdir(parents=True)
        (folder / "checkout" / "docs").mkdir()
        (folder / "checkout" / recorder.picture.PICTURE).write_text("<svg/>", encoding="utf-8")
        (folder / "checkout" / "README.md").write_text(PAGE, encoding="utf-8")
        for kind, args in self.command.before:
            process = self._start(folder, kind, args)
            process.join()
            assert process.exitcode == 0, (folder / "log").read_text(encoding="utf-8")
        (folder / "log").unlink(missing_ok=True)
        return folder

    def _copy(self, name):
        return Path(shutil.copytree(self.ready, self.folder / name))

    def _start(self, folder, kind=None, args=None):
        arguments = (kind or self.command.kind, args or self.command.args, folder)
        process = self.context.Process(target=execute, args=arguments)
        process.start()
        return process

    def _run(self, folder):
        """Run the command to its end; return its exit status, or None if it hangs."""
        process = self._start(folder)
        process.join(60 * MINUTES)
        if process.is_alive():
            end_all(session(process.pid))
            return None
        return process.exitcode

    def trial(self, number, chance):
        """Kill the command once; return whether it was still running then."""
        folder, victim = self._copy(str(number)), chance.choice(self.command.victims)
        process, began = self._start(folder), time.monotonic()
        # Half of the kills hit the end of the command, where it replaces files.
        moment = self.length * (chance.random() if chance.random() < 0.5 else 1 - 0.4 * chance.random())
        process.join(moment)
        family = session(process.pid)
        workers = [one for one in family if one.pid != process.pid and is_worker(one)]
        if not process.is_alive():  # the machine is less busy than it was
            self.length = min(self.length, time.monotonic() - began)
        if not process.is_alive() or (victim == "worker" and not workers):
            end_all(family)
            process.join()
            shutil.rmtree(folder)
            return False
        faults = self.tally.counts.total()
        if victim == "worker":
            end_all([chance.choice(workers)])
            process.join(60 * MINUTES)
            self._check_exit(None if process.is_alive() else process.exitcode, folder)
            end_all(session(process.pid))
        else:
            end_all(family if victim == "all" else [psutil.Process(process.pid)])
            process.join()
            self._check_orphans(family)
            self._check_files(folder)
        make_old(folder)
        self._check_exit(self._run(folder), folder)
        self._check_result(folder)
        if self.tally.counts.total() == faults:
            shutil.rmtree(folder)
        else:
            print(f"  kept: {folder} ({victim} killed after {moment:.2f} of {self.length:.2f} s)", flush=True)
        return True

    def _check_orphans(self, family):
        """Check that the workers of a main process that was killed end by themselves."""
        _, alive = psutil.wait_procs(family, timeout=30)
        if alive:
            self.tally.note("leftovers", f"processes that live on: {[one.cmdline() for one in alive]}")
            end_all(alive)

    def _check_exit(self, status, folder):
        log = (folder / "log").read_text(encoding="utf-8")
        if status is None:
            self.tally.note("hangs", folder)
        elif status:
            self.tally.note("refusals", f"exit status {status}: {log[-500:]}")
        log = UNBORN.sub("", log)
        if "Traceback" in log:
            self.tally.note("tracebacks", log[log.index("Traceback") :][:1000])

    def _check_files(self, folder):
        """Check what is on disk after a kill: everything can be read, and nothing is lost."""
        runs, log = folder / "runs" / PLACE, ""
        if (folder / "log").exists():
            log = (folder / "log").read_text(encoding="utf-8")
        places = [runs, folder / "checkout" / "data" / "results" / PLACE]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            for place in places:
                if histories := find_histories(place):
                    table(histories)  # as `qat compare` does
        if said.getvalue():
            self.tally.note("damaged", said.getvalue())
        for path in folder.rglob("[!.]*.safetensors"):
            with self._noting(path):
                checkpoint.read(path)
        if self.command.kind == "record":
            self._check_old_runs(folder / "checkout" / "data" / "results" / PLACE)
            return
        for name in names(self.command.args):
            self._check_epochs(runs, name, log)

    @contextlib.contextmanager
    def _noting(self, path):
        try:
            yield
        except CourseError as error:
            self.tally.note("damaged", f"{path}: {error}")

    def _check_old_runs(self, place):
        """Check that each recorded history is the old or the new one."""
        for name in NETS:
            versions = [
                rows(root / "checkout" / "data" / "results" / PLACE / f"{name}.npy")
                for root in (self.ready, self.reference)
            ]
            if rows(place / f"{name}.npy") not in versions:
                self.tally.note("losses", f"{place / name}.npy is neither the old nor the new history")

    def _check_epochs(self, runs, name, log):
        """Check that a run which was finished before is there, or can be continued, and that no epoch is lost."""
        printed = [int(epoch) for epoch in re.findall(rf"{name} epoch (\d+)/", log)]
        resume, history = runs / f"{name}.resume.safetensors", rows(runs / f"{name}.npy")
        kept = len(checkpoint.read(resume)[1]["rows"]) if resume.exists() else len(history)
        if printed and kept < printed[-1] - 1:
            self.tally.note("losses", f"{kept} epochs are kept, but {printed[-1]} were finished")
        old, new = (rows(root / "runs" / PLACE / f"{name}.npy") for root in (self.ready, self.reference))
        weights = runs / f"{name}.safetensors"
        if old and not resume.exists() and (history not in (old, new) or not weights.exists()):
            self.tally.note("losses", f"the finished run of {name} is gone")

    def _check_result(self, folder):
        """Check that all files are those of an undisturbed run, in name and content."""
        expected, found = (contents(root) for root in (self.reference, folder))
        if expected.keys() != found.keys():
            self.tally.note("leftovers", f"{sorted(expected.keys() ^ found.keys())} (in one of both folders)")
        for path in sorted(expected.keys() & found.keys()):
            if expected[path] != found[path]:
                self.tally.note("wrong results", path)


def make_old(folder):
    """Make the temporary files of a killed process so old that the next process may remove them."""
    for path in folder.rglob(".*"):
        os.utime(path, (0, 0))


def session(pid):
    """Return the processes of the session that `execute` began in the process `pid`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == pid:
                found.append(process)
    return found


def is_worker(process):
    with contextlib.suppress(psutil.Error):
        return any("spawn_main" in word for word in process.cmdline())
    return False


def end_all(processes):
    for process in processes:
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def rows(path):
    """Return what a run that is repeated has in common with the first one: the columns of its history, but no times."""
    if not path.exists():
        return []
    history = History.load(path)
    return [tuple(row) for row in zip(*(history[column].tolist() for column in COLUMNS), strict=True)]


def contents(folder):
    """Return the files of a trial, by path: histories and weights as values, of all others only that they are there.

    What is in the system's folder for temporary files is left out: the system removes it.
    """
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.startswith("tmp/"):
            continue
        if path.suffix == ".npy":
            found[name] = rows(path)
        elif path.suffix == ".safetensors":
            found[name] = {key: value.tolist() for key, value in checkpoint.read(path)[0].items()}
        elif path.name == "README.md":
            found[name] = re.sub(r"\d+\.\d+ *\|", "|", path.read_text(encoding="utf-8"))
        else:
            found[name] = None
    return found


def kill(kind, kills, seed):
    """Kill the commands of one kind until `kills` of them were hit; return what was counted."""
    tally, began = Tally(), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"qat-crash-{kind}-"))
    variants = [Trials(command, folder / str(number), tally) for number, command in enumerate(COMMANDS[kind])]
    chance, number = random.Random(f"{kind} {seed}"), 0
    while tally.kills < kills:
        number += 1
        tally.kills += variants[number % len(variants)].trial(number, chance)
        print(f"{kind}: trial {number}, {tally.kills} of {kills} kills", flush=True)
    tally.seconds = time.monotonic() - began
    if not tally.counts:
        shutil.rmtree(folder)
    return tally


@click.command()
@click.option("--kills", type=click.IntRange(1), default=100, show_default=True, help="For each kind of command.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--command", "kinds", type=click.Choice(list(COMMANDS)), multiple=True, default=tuple(COMMANDS))
def main(kills, seed, kinds):
    """Kill commands at random moments, run them again, and print what was lost."""
    faults = 0
    for kind in kinds:
        tally = kill(kind, kills, seed)
        counts = ", ".join(f"{tally.counts[fault]} {fault}" for fault in FAULTS)
        print(f"{kind}: {tally.kills} kills (seed {seed}), {counts}, {tally.seconds:.0f} s", flush=True)
        faults += tally.counts.total()
    sys.exit(faults > 0)
