"""Look at nets and runs: what a net costs (`costs`), plots of runs and weights (`plots`), drawings (`diagrams`)."""

from . import costs, diagrams, plots

__all__ = ["costs", "diagrams", "plots"]
