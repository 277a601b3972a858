"""Choose runs and compare their curves, sizes and accuracies."""

from collections.abc import Iterable, Sequence

import ipywidgets as ipw

from ..analysis import plots
from ..common.errors import CourseError
from ..results.recorded import recorded_histories
from ..results.runs import problem_with
from ..results.tables import table
from ..training.history import History

COLUMNS = ["bits", "kB", "train", "test", "epochs", "seed"]


class Comparison(ipw.VBox):
    """Tick runs to compare their training curves, their accuracy against their size, and a table of results.

    Args:
        histories: The runs to choose from, or one run; by default the recorded runs of `arch` that come with the
            course. Runs of your own schemes and architectures are shown like those of the course.
        arch: Name of the architecture whose recorded runs are shown if `histories` is not given.

    Raises:
        CourseError: If no run of `arch` is recorded, if the runs are on several data sets, if a run has no epochs, or
            if its config lacks something that is shown.
        ValueError: If `histories` is something else.
    """

    def __init__(self, histories: Sequence[History] | History | None = None, arch: str = "convnet"):
        """Create the widget with all runs ticked."""
        self.histories = _recorded(arch) if histories is None else _checked(histories)
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
        self.status.value = "" if shown else "Tick at least one run." if self.boxes else "There are no runs to compare."
        for figure in (self.curves, self.sizes):
            figure.layout.visibility = "visible" if shown else "hidden"
        if not shown:
            self.table.value = ""
            return
        self.curves.value = plots.curves(shown).png()
        self.sizes.value = plots.sizes(shown).png()
        columns = [column for column in COLUMNS if column in (results := table(shown))]  # old runs have no size
        self.table.value = results[columns].to_html(border=0, index_names=False)


def _recorded(arch: str) -> list[History]:
    histories = recorded_histories(str(arch))
    if not histories:
        raise CourseError(
            f"No runs of {arch} are recorded: pass your own, such as results.find_histories(results.run_folder(data, "
            "arch)), or choose an architecture of the course."
        )
    return histories


def _checked(histories: Sequence[History] | History) -> list[History]:
    if isinstance(histories, History):
        histories = [histories]
    if not isinstance(histories, Iterable) or isinstance(histories, dict):
        raise ValueError(f"histories must be a list of histories; got {type(histories).__name__}")
    histories = list(histories)
    for history in histories:
        if not isinstance(history, History):
            raise ValueError(f"histories must be a list of histories; it contains a {type(history).__name__}")
        problem = problem_with(history.config) or ("" if "arch" in history.config else "lacks arch")
        if problem:
            raise CourseError(f"The config of the run {history.name} {problem}: leave that run out.")
    return histories


def _title(history: History) -> str:
    seed = f", seed {history.config['seed']}" if history.config["seed"] else ""
    return f"{history.name} ({history.config['bits']}{seed})"
