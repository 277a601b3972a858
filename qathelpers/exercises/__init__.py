"""The exercises of the notebooks: `check` compares a reader's answers with the expected ones."""

from . import check

__all__ = ["check"]
