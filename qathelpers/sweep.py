"""Train a grid of nets, widths and seeds, several at a time, on this machine or on many.

Dask hands the trainings out. It is pure Python and small beside Ray, starts a worker that was killed again, and gives
what that one was at to another, where `fit` goes on from the last epoch. On several machines the results' folder
(QAT_RESULTS_DIR) and the data must be reachable by all.
"""

import contextlib
import importlib.util
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from . import checkpoints, data, results, settings
from .errors import CourseError
from .history import History
from .nets import build
from .recipe import changed

SECONDS_BETWEEN_LOOKS = 1.0  # at how far the trainings are
ANSWER = 20  # seconds that a scheduler is waited for
FAILURES = 3  # of the workers that hold a training, before it is given up


@dataclass(frozen=True)
class Job:
    """One training of the grid; `changes` are the recipe's, as in `recipe.changed`."""

    name: str
    arch: str
    seed: int
    epochs: int
    data: str
    changes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return what tells the job from the others of its grid."""
        return f"{self.name} {self.arch} seed {self.seed}"

    def card(self, loaded: data.Data) -> dict:
        """Return the card that its run will have."""
        net = build(self.name, self.arch, seed=self.seed)
        recipe = changed(net.recipe, self.changes)
        return results.planned(net, loaded, self.epochs, seed=self.seed, recipe=recipe)

    def files(self) -> checkpoints.Files:
        """Return its run's files."""
        stem = checkpoints.stem({"name": self.name, "seed": self.seed})
        return checkpoints.Files(results.run_folder(self.data, self.arch), stem)


def grid(
    names: Iterable[str],
    archs: Iterable[str],
    seeds: Iterable[int],
    epochs: int,
    data_name: str,
    changes: Iterable[str] = (),
) -> list[Job]:
    """Return a job for every combination; raises CourseError when a name, a width or a change is not known."""
    combinations = itertools.product(names, archs, seeds)
    jobs = [Job(name, arch, seed, epochs, data_name, tuple(changes)) for name, arch, seed in combinations]
    for job in jobs:
        changed(build(job.name, job.arch).recipe, job.changes)
    return jobs


def run(jobs: Sequence[Job], loaded: data.Data, workers: int | None = None, scheduler: str | None = None) -> list[Job]:
    """Train what of `jobs` is not finished yet, `workers` at a time, and return those that could not be.

    `scheduler` is the address of a Dask cluster that runs already; without one, workers are started here, one a core.
    Prints what was skipped, shows how many epochs are done, and a line for each training that ends. Raises CourseError
    when Dask is not installed or the scheduler does not answer.
    """
    if not importlib.util.find_spec("distributed"):
        raise CourseError("Dask is not installed: run `pip install -e '.[sweep]'` in the course.")
    open_jobs = [job for job in jobs if job.files().finished(job.card(loaded)) is None]
    print(f"{len(jobs) - len(open_jobs)} of {len(jobs)} trainings are finished already.")
    if not open_jobs:
        return []
    workers = min(workers or os.cpu_count() or 1, len(open_jobs))
    with _client(workers, scheduler) as client:
        threads = max(1, (os.cpu_count() or 1) // workers)
        futures = {client.submit(train, job, threads, key=str(job), pure=False): job for job in open_jobs}
        return _watch(futures, open_jobs)


def train(job: Job, threads: int) -> float:
    """Train one job to its end, what it prints going into a .log beside its files; return its test accuracy."""
    torch.set_num_threads(threads)
    log = _log(job)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as output, contextlib.redirect_stdout(output):
        recipe = changed(build(job.name, job.arch).recipe, job.changes)
        loaded = data.load(job.data)
        _, history = results.load_or_train(job.name, loaded, job.epochs, arch=job.arch, seed=job.seed, recipe=recipe)
    return float(history["test_acc"][-1])


def _client(workers: int, scheduler: str | None):
    import dask
    from distributed import Client, LocalCluster

    dask.config.set({"distributed.scheduler.allowed-failures": FAILURES})
    try:
        if scheduler:
            return Client(scheduler, timeout=ANSWER)
        return Client(LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None))
    except OSError as error:
        raise CourseError(f"No Dask scheduler answers at {scheduler}: start one with `dask scheduler`.") from error


def _watch(futures: dict, jobs: Sequence[Job]) -> list[Job]:
    """Show how far all are until all have ended; return those that failed."""
    from distributed import TimeoutError, wait  # which is Python's own since 3.11

    failed, waiting = [], set(futures)
    with tqdm(total=sum(job.epochs for job in jobs), unit="epoch", ncols=80, disable=None) as bar:
        while waiting:
            with contextlib.suppress(TimeoutError):
                wait(waiting, timeout=SECONDS_BETWEEN_LOOKS, return_when="FIRST_COMPLETED")
            for future in [future for future in waiting if future.done()]:
                waiting.remove(future)
                job = futures[future]
                if future.status == "finished":
                    bar.write(f"{job}: test accuracy {future.result():.4f}")
                else:
                    failed.append(job)
                    bar.write(f"{job}: {future.exception()}; its log is {settings.short(_log(job))}")
            bar.n = sum(_epochs_done(job) for job in jobs)
            bar.refresh()
    return failed


def _log(job: Job) -> Path:
    return job.files().history.with_suffix(".log")


def _epochs_done(job: Job) -> int:
    with contextlib.suppress(CourseError):
        history = History.load(job.files().history)
        return len(history) if history.card["epochs"] == job.epochs else 0
    return 0
