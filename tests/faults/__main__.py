"""Measure what the tests of this folder check: `python -m tests.faults --help`."""

import click

from . import crash_only, memory


@click.group()
def main():
    """Measure what the tests of this folder check."""


main.add_command(crash_only.main, "crash-only")
main.add_command(memory.main, "memory")

if __name__ == "__main__":
    main(prog_name="python -m tests.faults")
