"""A still picture of a widget, for pages that show a notebook without a kernel, such as GitHub."""

import base64
from typing import Any

from IPython.display import display

from ..analysis.figure import Figure

VIEW = "application/vnd.jupyter.widget-view+json"  # what JupyterLab and Colab show as a live widget


class WithPreview:
    """A widget whose output holds a picture of itself, too: list this class before the ipywidgets class.

    Where a kernel runs, the live widget is shown, because it comes before a picture in the order of MIME types. A page
    without a kernel shows the picture with its alternative text. (ipympl's figures do the same.)
    """

    def preview(self) -> Figure:
        """Return the picture, with an alternative text (`Figure.with_alt`); it must not show photographs."""
        raise NotImplementedError(f"{type(self).__name__} has no preview: define its method `preview`.")

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict, dict]:
        """Return the output of this widget and its metadata (ipywidgets 8)."""
        figure = self.preview()
        data = {
            "text/plain": figure.alt or type(self).__name__,
            "image/png": base64.b64encode(figure.png()).decode("ascii"),
            VIEW: {"version_major": 2, "version_minor": 0, "model_id": self.model_id},
        }
        return data, {"image/png": {"alt": figure.alt}}

    def _ipython_display_(self, **_: Any) -> None:
        """Display this widget: ipywidgets 7 calls this function, and ignores `_repr_mimebundle_`."""
        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)
        displayed = getattr(self, "_handle_displayed", None)  # ipywidgets 7 tells whoever called `on_displayed`
        if displayed:
            displayed()
