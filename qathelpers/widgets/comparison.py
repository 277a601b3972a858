"""Tick runs; see their curves, and their accuracy against their size."""

from collections.abc import Sequence

import ipywidgets as ipw

from .. import plots, results
from ..history import History


class Comparison(ipw.VBox):
    """Tick runs, yours or recorded ones; see curves, accuracy against bytes, and the table change.

    `histories` are those that come with the course unless you give others. `ticked` are those that are shown.
    """

    def __init__(self, histories: Sequence[History] | None = None, arch: str = "convnet"):
        """Make the widget; all runs are ticked at first."""
        self.histories = list(results.recorded_histories(arch) if histories is None else histories)
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
        self.status.value = "" if shown else "Tick a run to see it."
        for picture in (self.curves, self.sizes):
            picture.layout.visibility = "visible" if shown else "hidden"
        if not shown:
            self.table.value = ""
            return
        self.curves.value = plots.curves(shown).png()
        self.sizes.value = plots.sizes(shown).png()
        self.table.value = results.table(shown)[["bits", "kB", "train", "test", "epochs", "seed"]].to_html(
            border=0, index_names=False
        )


def _title(history: History) -> str:
    seed = f", seed {history.card['seed']}" if history.card["seed"] else ""
    return f"{history.name} ({history.card['bits']}{seed})"
