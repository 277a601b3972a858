"""What the commands in this folder share."""

from pathlib import Path

import click

from qathelpers.__main__ import Group, ShowsErrors

__all__ = ["CHECKOUT", "Command", "Group"]

CHECKOUT = Path(__file__).resolve().parent.parent


class Command(ShowsErrors, click.Command):
    """A click command that reports a mistake of its user in one sentence."""
