"""Look at nets and runs: what a net costs (`costs`), and every figure of the course (`plots`)."""

from . import costs, plots

__all__ = ["costs", "plots"]
