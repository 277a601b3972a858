"""Train a grid of nets, widths and seeds, several at a time, on this machine or on many.

Dask distributes the trainings. It is pure Python and small compared with Ray. If a worker is killed, Dask restarts it
and gives its training to another worker, where `fit` continues after the last finished epoch. All machines must be able
to access the results folder (QAT_RESULTS_DIR) and the data.

Whoever can give a Dask scheduler commands can run code as the user of its workers. The scheduler that a sweep starts
accepts only connections with a certificate that is made for this sweep. A scheduler that you start yourself accepts
everyone who can reach it, unless you give it certificates (see Dask's documentation of TLS).
"""

import contextlib
import hashlib
import importlib.util
import itertools
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path

import torch

from ..common import settings
from ..common.errors import CourseError, raise_if_of_the_machine
from ..common.files import not_written
from ..common.progress import progress
from ..data.cifar10 import load
from ..data.dataset import Dataset
from ..nets.architectures import build
from ..nets.recipe import Recipe, changed
from ..training import overwriting
from ..training.history import History
from ..training.run import Run, differences, identity, run_name
from .runs import load_or_train, plan, run_folder

SECONDS_BETWEEN_UPDATES = 1.0  # of the progress bar
TIMEOUT = 20  # seconds to wait for a scheduler
FAILURES = 3  # a training is given up after this many workers have died during it
PACKAGES = ("distributed", "cryptography")
# No pages about the scheduler and its workers are served to the other users of the machine.
NO_PAGES = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
# Dask restarts a killed worker, and gives up if the worker is not back after this time. The default of 15 s is too
# short for a busy machine, which needs longer to import PyTorch.
SLOW_START = {"distributed.deploy.lost-worker-timeout": "60s"}
PATIENCE = 300.0  # seconds without any worker, after which the sweep ends


@dataclass(frozen=True)
class Job:
    """One training of the grid; `changes` change its recipe (see `recipe.changed`)."""

    name: str
    arch: str
    seed: int
    epochs: int
    data: str
    changes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return what distinguishes the job from the others of its grid."""
        return f"{self.name} {self.arch} seed {self.seed}"

    @property
    def recipe(self) -> Recipe:
        """The recipe, with its changes.

        Raises:
            CourseError: If the net, the architecture or a change is unknown.
        """
        return changed(build(self.name, self.arch).spec.recipe, self.changes)

    @property
    def log_path(self) -> Path:
        """The file for the output of the training, on the machine where the training runs."""
        return run_folder(self.data, self.arch) / f"{run_name(self.name, self.seed)}.log"

    def plan(self, dataset: Dataset) -> Run:
        """Return the job's run."""
        return plan(self.name, dataset, self.epochs, arch=self.arch, seed=self.seed, recipe=self.recipe)[1]


def grid(
    names: Iterable[str],
    archs: Iterable[str],
    seeds: Iterable[int],
    epochs: int,
    data_name: str,
    changes: Iterable[str] = (),
) -> list[Job]:
    """Return one job per combination of name, architecture and seed.

    Raises:
        CourseError: If a name, an architecture or a change is unknown.
    """
    combinations = itertools.product(names, archs, seeds)
    jobs = [Job(name, arch, seed, epochs, data_name, tuple(changes)) for name, arch, seed in combinations]
    for job in jobs:
        _ = job.recipe
    return jobs


def run(
    jobs: Sequence[Job],
    dataset: Dataset,
    workers: int | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
) -> list[Job]:
    """Train the jobs that are not finished yet; print how many are finished, and one line when a training ends.

    Args:
        jobs: The grid.
        dataset: The data, which is needed to recognize finished runs.
        workers: Number of trainings at a time; by default one per GPU, or one per core without a GPU.
        scheduler: Address of a running Dask cluster; without one, workers are started on this machine.
        overwrite: Whether runs with other settings may be replaced; see `fit`.

    Returns:
        The jobs that failed.

    Raises:
        CourseError: If Dask is not installed, the scheduler does not answer, or a training would replace a run with
            other settings. In these cases, nothing is trained. The error is also raised if the scheduler or all workers
            are lost; finished epochs are then kept.
    """
    missing = [name for name in PACKAGES if not importlib.util.find_spec(name)]
    if missing:
        raise CourseError(
            f"A sweep needs Dask, but {' and '.join(missing)} cannot be found: run `pip install -e '.[sweep]'` in the "
            "course folder."
        )
    runs = {job: job.plan(dataset) for job in jobs}
    waiting = {job: run for job, run in runs.items() if run.finished() is None}
    for run in waiting.values():
        overwriting.check(run, overwrite)
    print(f"{len(jobs) - len(waiting)} of {len(jobs)} trainings are already finished.")
    if not waiting:
        return []
    workers = min(workers or torch.cuda.device_count() or os.cpu_count() or 1, len(waiting))
    with _client(workers, scheduler) as client:
        threads = max(1, (os.cpu_count() or 1) // workers)
        futures = {
            client.submit(train, job, threads, run.config, overwrite, key=_key(job, run), pure=False): job
            for job, run in waiting.items()
        }
        try:
            return _watch(futures, waiting, client, workers)
        except (CancelledError, OSError) as error:
            if not isinstance(error, ConnectionError):
                raise_if_of_the_machine(error)  # a full disk, for example; Dask's own errors have no number
            raise CourseError(
                "The connection to the Dask scheduler was lost: start the scheduler again, and repeat the command. "
                "Finished epochs are kept."
            ) from error


def train(job: Job, threads: int, config: dict, overwrite: bool = False) -> float:
    """Train one job, write its output to its log file, and return its test accuracy.

    Args:
        job: What to train.
        threads: Number of threads of PyTorch.
        config: That of the run as the sweep has planned it.
        overwrite: Whether a run with other settings may be replaced.

    Raises:
        CourseError: If this machine would train another run, because its data or its environment variables differ.
    """
    torch.set_num_threads(threads)
    _take_a_gpu()
    try:
        job.log_path.parent.mkdir(parents=True, exist_ok=True)
        log = open(job.log_path, "a", encoding="utf-8")  # noqa: SIM115, the with statement below closes it
    except OSError as error:  # the log of another user, for example
        raise not_written(job.log_path, error) from error
    with log as output, contextlib.redirect_stdout(output):
        dataset = load(job.data)
        changed = differences(config, job.plan(dataset).config)
        if changed:
            raise CourseError(
                f"The worker would train {job} with other settings ({', '.join(changed)}): use the same data, versions "
                "of the course and environment variables on all machines."
            )
        options = {"arch": job.arch, "seed": job.seed, "recipe": job.recipe, "overwrite": overwrite}
        _, history = load_or_train(job.name, dataset, job.epochs, **options)
    return history.test_acc


def _take_a_gpu() -> None:
    """Let the worker that runs this use its own GPU, in turn if there are fewer GPUs than workers.

    The workers of this machine have numbers as names. Those of a cluster have addresses. There, whoever starts a worker
    chooses its GPU with CUDA_VISIBLE_DEVICES.
    """
    from distributed import get_worker

    number = get_worker().name
    if isinstance(number, int) and torch.cuda.device_count() > 1:
        torch.cuda.set_device(number % torch.cuda.device_count())


def _key(job: Job, run: Run) -> str:
    """Return a key that two sweeps on one cluster share only if they want the same run in the same folder."""
    content = json.dumps([identity(run.config), str(run.folder)], sort_keys=True)
    return f"{job} {hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _client(workers: int, scheduler: str | None):
    import dask
    from distributed import Client, LocalCluster, Security

    dask.config.set({"distributed.scheduler.allowed-failures": FAILURES} | NO_PAGES | SLOW_START)
    try:
        if scheduler:
            return Client(scheduler, timeout=TIMEOUT)
        security = Security.temporary()
        client = Client(
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                dashboard_address=None,
                protocol="tls",
                host="127.0.0.1",
                security=security,
            )
        )
    except OSError as error:
        if scheduler is None:
            raise
        raise CourseError(f"No Dask scheduler answers at {scheduler}: start one with `dask scheduler`.") from error
    for plugin in _without_http():
        client.register_plugin(plugin)
    return client


def _without_http() -> tuple:
    """Return plugins that close the HTTP ports of the scheduler and of each worker, including restarted workers.

    Dask opens these ports, without TLS, even if there are no pages to serve.
    """
    from distributed import SchedulerPlugin, WorkerPlugin

    class Scheduler(SchedulerPlugin):
        async def start(self, scheduler) -> None:
            scheduler.http_server.stop()

    class Worker(WorkerPlugin):
        def setup(self, worker) -> None:
            worker.http_server.stop()

    return Scheduler(), Worker()


def _watch(futures: dict, runs: dict[Job, Run], client, workers: int) -> list[Job]:
    """Show the progress until all trainings have ended; return those that failed.

    Raises:
        CourseError: If there is no worker for `PATIENCE` seconds.
    """
    from distributed import TimeoutError, wait  # the same as Python's own TimeoutError since 3.11

    failed, waiting, last_seen = [], set(futures), time.monotonic()
    with progress(total=sum(run.epochs for run in runs.values()), title="sweep", unit="epoch") as bar:
        while waiting:
            with contextlib.suppress(TimeoutError):
                wait(waiting, timeout=SECONDS_BETWEEN_UPDATES, return_when="FIRST_COMPLETED")
            for future in [future for future in waiting if future.done()]:
                waiting.remove(future)
                job = futures[future]
                if future.status == "finished":
                    bar.write(f"{job}: {History(runs[job].config).held_out} accuracy {future.result():.4f}")
                else:
                    failed.append(job)
                    bar.write(f"{job}: {future.exception()}; see the log {settings.short(job.log_path)}")
            bar.n = sum(_epochs_done(run) for run in runs.values())
            bar.refresh()
            if client.cluster:
                client.cluster.scale(workers)  # replaces workers that Dask has given up on
            if client.scheduler_info()["workers"]:
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > PATIENCE:
                raise CourseError(
                    f"There has been no worker for {PATIENCE:.0f} seconds: start workers, if the scheduler is your "
                    "own, and repeat the command. Finished epochs are kept."
                )
    return failed


def _epochs_done(run: Run) -> int:
    with contextlib.suppress(CourseError):
        history = History.load(run.history_path)
        return len(history) if history.config.get("epochs") == run.epochs else 0
    return 0
