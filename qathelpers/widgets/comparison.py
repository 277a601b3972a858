"""Choose runs and compare their curves, sizes and accuracies."""

from collections.abc import Sequence

import ipywidgets as ipw

from ..analysis import plots
from ..results.recorded import recorded_histories
from ..results.tables import table
from ..training.history import History

COLUMNS = ["bits", "kB", "train", "test", "epochs", "seed"]


class Comparison(ipw.VBox):
    """Tick runs to compare their training curves, their accuracy against their size, and a table of results.

    Args:
        histories: The runs to choose from; by default the recorded runs of `arch` that come with the course.
        arch: Name of the architecture whose recorded runs are shown if `histories` is not given.
    """

    def __init__(self, histories: Sequence[History] | None = None, arch: str = "convnet"):
        """Create the widget with all runs ticked."""
        self.histories = list(recorded_histories(arch) if histories is None else histories)
        self.boxes = [ipw.Checkbox(value=True, description=_title(history), indent=False) for history in self.histories]
        self.curves = ipw.Image(value=b"", format="png", layout=ipw.Layout(height="306px", width="810px"))
        self.sizes = ipw.Image(value=b"", format="png", layout=ipw.Layout(height="306px", width="432px"))
        self.table, self.status = ipw.HTML(), ipw.HTML()
        for box in self.boxes:
            box.observe(lambda _: self._update(), names="value")
        super().__init__(
            [ipw.HBox([ipw.VBox(self.boxes), self.sizes]), self.status, self.curves, self.table],
        )
        self._update()

    @property
    def ticked(self) -> list[History]:
        """The runs that are shown."""
        return [history for history, box in zip(self.histories, self.boxes, strict=True) if box.value]

    def _update(self) -> None:
        shown = self.ticked
        self.status.value = "" if shown else "Tick at least one run."
        for figure in (self.curves, self.sizes):
            figure.layout.visibility = "visible" if shown else "hidden"
        if not shown:
            self.table.value = ""
            return
        self.curves.value = plots.curves(shown).png()
        self.sizes.value = plots.sizes(shown).png()
        self.table.value = table(shown)[COLUMNS].to_html(border=0, index_names=False)


def _title(history: History) -> str:
    seed = f", seed {history.config['seed']}" if history.config["seed"] else ""
    return f"{history.name} ({history.config['bits']}{seed})"
