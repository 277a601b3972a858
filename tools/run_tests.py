"""Run the tests, and every notebook on a small part of the data: `python -m tools.run_tests [PYTEST'S OPTIONS]`.

`make test` does the same, after a check of the format.
"""

import os
import subprocess
import sys
from tempfile import TemporaryDirectory

from .commands import CHECKOUT

# The first two settings make every training short. One process per core with one thread each: most of the time is spent
# in work that is single-threaded. A process that has no tests left takes some from another one.
SHORT = {"QAT_MAX_EPOCHS": "1", "QAT_MAX_IMAGES": "1000", "OMP_NUM_THREADS": "1"}
OPTIONS = ("--numprocesses=auto", "--dist=worksteal")


def command(options: list[str]) -> list[str]:
    """Return the command that runs the tests; `options` are added at the end, so "-m slow" selects the slow tests."""
    return [sys.executable, "-m", "pytest", "tests", *OPTIONS, "-m", "not slow", *options]


def main() -> None:
    """Run the command line described above."""
    with TemporaryDirectory() as runs:
        settings = os.environ | SHORT | {"QAT_RESULTS_DIR": runs}
        sys.exit(subprocess.run(command(sys.argv[1:]), env=settings, cwd=CHECKOUT).returncode)


if __name__ == "__main__":
    main()
