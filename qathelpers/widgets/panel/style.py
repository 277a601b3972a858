"""The look of the training panel: readable in both themes, with a visible focus and rows that wrap."""

import html

import ipywidgets as ipw

# JupyterLab, Colab and VS Code name their theme in an attribute or a class of the page.
STYLE = """<style>
.qat-panel { --qat-focus: #0b57d0; --qat-error: #a3001b; --qat-quiet: #595959; --qat-primary: #0b57d0 }
[data-jp-theme-light="false"] .qat-panel, html[theme="dark"] .qat-panel, body.vscode-dark .qat-panel {
  --qat-focus: #8ab4f8; --qat-error: #ff8a80; --qat-quiet: #b5b5b5; --qat-primary: #2a6fdb }
.qat-panel, .qat-panel .widget-box { overflow: visible }
.qat-panel .widget-html-content { line-height: 1.4; overflow-wrap: anywhere }
.qat-panel .qat-chart { overflow-x: auto }
.qat-panel .qat-chart > svg { display: block; width: 100%; min-width: 280px; height: auto }
.qat-panel [class*="Collapse-header"] { color: var(--jp-ui-font-color0) }
.qat-panel .qat-run { border-top: 1px solid #7a7a7a; margin-top: 8px; padding-top: 6px }
.qat-panel .qat-title { font-size: 1.15em; font-weight: 600 }
.qat-panel .qat-number { font-size: 1.6em; font-weight: 600; margin-right: 0.3em }
.qat-panel .qat-quiet { color: var(--qat-quiet) }
.qat-panel .qat-error { color: var(--qat-error); font-weight: 600 }
.qat-panel .qat-legend { display: flex; flex-wrap: wrap; gap: 2px 16px }
.qat-panel .qat-legend span { overflow-wrap: anywhere; min-width: 0 }
.qat-panel .qat-legend svg { display: inline-block; width: 26px; height: 8px; margin-right: 5px }
.qat-panel .qat-scroll { overflow-x: auto }
.qat-panel td, .qat-panel th { padding: 1px 10px 1px 0; text-align: left }
.qat-panel .widget-label { font-size: 13px }
.qat-panel button.mod-primary, .qat-panel button.mod-primary:hover { background: var(--qat-primary); color: white }
.qat-panel button.mod-danger, .qat-panel button.mod-danger:hover { background: #b3261e; color: white }
.qat-panel select, .qat-panel input[type=text] { border: 1px solid #7a7a7a !important }
.qat-panel .progress, .qat-panel .widget-hprogress { border-radius: 3px }
.qat-panel .progress { border: 1px solid #7a7a7a; box-sizing: border-box; background: transparent !important }
.qat-panel .progress-bar { background-color: var(--qat-primary) !important }
.qat-panel button:focus-visible, .qat-panel select:focus-visible, .qat-panel input:focus-visible,
.qat-panel .noUi-handle:focus,
.qat-panel .widget-readout:focus, .qat-panel .ui-slider-handle:focus, .qat-panel [tabindex]:focus-visible {
  outline: 3px solid var(--qat-focus) !important; outline-offset: 2px }
</style>"""


def style_sheet() -> ipw.HTML:
    """Return the style as an invisible child of a panel, so that it is there wherever the panel is shown."""
    return ipw.HTML(STYLE, layout=ipw.Layout(display="none"))


def row(*children: ipw.Widget, gap: str = "6px 16px", align: str = "center") -> ipw.HBox:
    """Return a row that continues on the next line where the window is narrow."""
    layout = ipw.Layout(flex_flow="row wrap", align_items=align, grid_gap=gap, overflow="visible", width="100%")
    return ipw.HBox(list(children), layout=layout)


def chart() -> ipw.HTML:
    """Return the place of a chart, which is as wide as the window allows, at most 520 pixels."""
    return ipw.HTML(layout=ipw.Layout(flex="1 1 300px", min_width="200px", max_width="520px", width="auto"))


def control(widget: ipw.Widget, width: int) -> ipw.Widget:
    """Give a control a width at which its label and its value are readable; return it."""
    widget.layout = ipw.Layout(width=f"{width}px", max_width="100%", flex="0 1 auto")
    widget.style.description_width = "initial"
    return widget


def statement(text: str, kind: str = "") -> str:
    """Return a sentence as HTML that screen readers read out; `kind` is "", "error" or "quiet"."""
    return f'<div role="status" class="{f"qat-{kind}" if kind else ""}">{html.escape(text)}</div>'
