"""What the commands in this folder share."""

from pathlib import Path

import click

from qathelpers.common.errors import CourseError

CHECKOUT = Path(__file__).resolve().parent.parent


class _ShowsErrors:
    """Show a CourseError as one sentence, without a traceback."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except CourseError as error:
            raise click.ClickException(str(error)) from error


class Command(_ShowsErrors, click.Command):
    """A click command that reports a mistake of its user in one sentence."""


class Group(_ShowsErrors, click.Group):
    """A group of click commands that report a mistake of their user in one sentence."""
