"""The look of all widgets: colours for both themes, a visible focus, rows that wrap, pictures that keep their shape."""

import html

import ipywidgets as ipw

# Colours of marks and of text, for a light and a dark background. JupyterLab, Colab and VS Code name their theme in
# an attribute or a class of the page.
STYLE = """<style>
.qat { --qat-good: #1b6e2c; --qat-bad: #a5300f; --qat-edge: #767676; --qat-quiet: #595959; --qat-focus: #0b57d0;
  --qat-error: #a3001b; --qat-primary: #0b57d0 }
[data-jp-theme-light="false"] .qat, html[theme="dark"] .qat, body.vscode-dark .qat {
  --qat-good: #6fd08c; --qat-bad: #ff9a7a; --qat-edge: #8f8f8f; --qat-quiet: #b5b5b5; --qat-focus: #a8c7fa;
  --qat-error: #ff8a80; --qat-primary: #2a6fdb }
.qat, .qat .widget-box { overflow: visible }
.qat { padding: 5px } /* the outline of a focused control lies outside of it */
.qat .qat { padding: 0 }
/* The number: a handle at the end of the track must not cover its outline. */
.qat .widget-slider .widget-readout { margin-left: 12px; min-width: 48px }
.qat .widget-checkbox, .qat .widget-label-basic { white-space: normal; height: auto; line-height: 1.3 }
.qat .widget-html-content { line-height: 1.4; overflow-wrap: anywhere; min-width: 0 }
.qat button:focus-visible, .qat select:focus-visible, .qat input:focus-visible, .qat .noUi-handle:focus,
.qat .widget-readout:focus, .qat .ui-slider-handle:focus, .qat [tabindex]:focus-visible {
  outline: 3px solid var(--qat-focus) !important; outline-offset: 2px }
.qat .qat-tiles { display: flex; flex-wrap: wrap; gap: 8px }
.qat .qat-tile { border: 1px solid var(--qat-edge); border-radius: 4px; padding: 4px 10px; min-width: 8.5em; flex: 1 }
.qat .qat-tile b { display: block; font-size: 1.45em }
.qat .qat-quiet { color: var(--qat-quiet) }
.qat .qat-good { color: var(--qat-good); font-weight: bold }
.qat .qat-bad { color: var(--qat-bad); font-weight: bold }
.qat .qat-error { color: var(--qat-error); font-weight: 600 }
.qat .qat-swatch { display: inline-block; width: 26px; height: 5px; padding: 4px 3px; background: white;
  background-clip: border-box; vertical-align: middle }
.qat .qat-track { display: inline-block; width: 110px; height: 12px; border: 1px solid var(--qat-edge) }
.qat .qat-track div { height: 100%; border-right: 1px solid var(--qat-edge); box-sizing: border-box }
.qat .qat-meter { position: relative; padding-top: 1.5em; margin-bottom: 6px }
.qat .qat-meter > :first-child { position: absolute; top: 0 }
.qat .qat-parts { display: flex; height: 24px; border: 1px solid var(--qat-edge) }
.qat .qat-line { position: absolute; top: 1.2em; bottom: -4px; border-left: 3px solid currentColor }
.qat .qat-key { white-space: nowrap; margin-right: 1.2em; display: inline-block }
.qat .qat-key span { display: inline-block; width: 0.8em; height: 0.8em; border: 1px solid currentColor }
.qat table { border-collapse: collapse }
.qat td, .qat th { padding: 1px 6px 1px 0; text-align: left }
.qat .qat-share { white-space: nowrap; overflow-wrap: normal }
.qat .qat-numbers td, .qat .qat-numbers th { padding: 2px 8px; text-align: right; white-space: nowrap }
.qat .qat-numbers td, .qat .qat-numbers th { box-sizing: border-box; overflow: hidden; text-overflow: ellipsis }
.qat .qat-numbers td:first-child, .qat .qat-numbers th:first-child { text-align: left }
.qat .qat-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
.qat-panel .qat-chart { overflow-x: auto }
.qat-panel .qat-chart > svg { display: block; width: 100%; min-width: 280px; height: auto }
.qat-panel [class*="Collapse-header"] { color: var(--jp-ui-font-color0) }
.qat-panel .qat-run { border-top: 1px solid #7a7a7a; margin-top: 8px; padding-top: 6px }
.qat-panel .qat-title { font-size: 1.15em; font-weight: 600 }
.qat-panel .qat-number { font-size: 1.6em; font-weight: 600; margin-right: 0.3em }
.qat-panel .qat-legend { display: flex; flex-wrap: wrap; gap: 2px 16px }
.qat-panel .qat-legend span { overflow-wrap: anywhere; min-width: 0 }
.qat-panel .qat-legend svg { display: inline-block; width: 26px; height: 8px; margin-right: 5px }
.qat-panel .qat-scroll { overflow-x: auto }
.qat-panel td, .qat-panel th { padding: 1px 10px 1px 0 }
.qat-panel .widget-label { font-size: 13px }
.qat-panel button.mod-primary, .qat-panel button.mod-primary:hover { background: var(--qat-primary); color: white }
.qat-panel button.mod-danger, .qat-panel button.mod-danger:hover { background: #b3261e; color: white }
.qat-panel select, .qat-panel input[type=text] { border: 1px solid #7a7a7a !important }
.qat-panel .progress, .qat-panel .widget-hprogress { border-radius: 3px }
.qat-panel .progress { border: 1px solid #7a7a7a; box-sizing: border-box; background: transparent !important }
.qat-panel .progress-bar { background-color: var(--qat-primary) !important }
</style>"""


class Widget(ipw.VBox):
    """A column of widgets in the style of the course."""

    def __init__(self, children: list[ipw.Widget], **options: object):
        """Create the column, with the style as its first child, which is not visible."""
        super().__init__([ipw.HTML(STYLE, layout=ipw.Layout(display="none")), *children], **options)
        self.add_class("qat")


def row(*children: ipw.Widget, gap: str = "6px 14px", align: str = "center") -> ipw.HBox:
    """Return a row that continues on the next line where the window is narrow."""
    layout = ipw.Layout(flex_flow="row wrap", align_items=align, grid_gap=gap, overflow="visible")
    return ipw.HBox(list(children), layout=layout)


def picture(width: int, narrowest: int = 250) -> ipw.Image:
    """Return a picture that is `width` pixels wide, or less in a narrow window, and keeps its proportions."""
    layout = ipw.Layout(
        width="100%", max_width=f"{width}px", min_width="200px", height="auto", flex=f"1 1 {narrowest}px",
        object_fit="contain", margin="0px",
    )  # fmt: skip
    return ipw.Image(value=b"", format="png", layout=layout)


def chart() -> ipw.HTML:
    """Return the place of a chart, which is as wide as the window allows, at most 520 pixels."""
    return ipw.HTML(layout=ipw.Layout(flex="1 1 300px", min_width="200px", max_width="520px", width="auto"))


def narrow(control: ipw.Widget, width: int) -> ipw.Widget:
    """Give a control a width at which its label and its value are readable; return it."""
    control.layout = ipw.Layout(width=f"{width}px", max_width="100%", flex="0 1 auto")
    control.style.description_width = "initial"
    return control


def wide(control: ipw.Widget, width: int = 300) -> ipw.Widget:
    """Give a slider or a choice room for its label and its track; return it."""
    control.layout = ipw.Layout(width="100%", max_width=f"{width}px", min_width="220px", flex=f"1 1 {width}px")
    control.style.description_width = "5.3em"
    return control


def button(text: str, tooltip: str = "", *, primary: bool = False) -> ipw.Button:
    """Return a button that is as wide as its text."""
    layout = ipw.Layout(width="auto", min_width="3em", flex="0 0 auto")
    return ipw.Button(
        description=text, tooltip=tooltip or text, button_style="primary" if primary else "", layout=layout
    )


def tick(text: str, value: bool = True) -> ipw.Checkbox:
    """Return a box to tick that is as wide as its text."""
    return ipw.Checkbox(value=value, description=text, indent=False, layout=ipw.Layout(width="auto", flex="0 0 auto"))


def tiles(numbers: dict[str, str], notes: dict[str, str] | None = None) -> str:
    """Return boxes with a number each, as HTML.

    Args:
        numbers: The text of each number, by its title.
        notes: What stands below some of the numbers, by title.
    """
    boxes = "".join(
        f'<div class="qat-tile">{html.escape(title)}<b>{html.escape(number)}</b>'
        + (f'<span class="qat-quiet">{html.escape(notes[title])}</span>' if notes and title in notes else "")
        + "</div>"
        for title, number in numbers.items()
    )
    return f'<div class="qat-tiles">{boxes}</div>'


def announced(text: str, kind: str = "") -> str:
    """Return a text as HTML that screen readers read out when it changes.

    Args:
        text: A sentence or two.
        kind: "", "good", "bad", "error" or "quiet".
    """
    return f'<div role="status" class="{f"qat-{kind}" if kind else ""}">{html.escape(text)}</div>'


def unseen(text: str) -> str:
    """Return a text as HTML that only screen readers read: what a picture shows."""
    return f'<div class="qat-hidden" role="img" aria-label="{html.escape(text)}"></div>'


def readable(colour: str, contrast: float = 4.5) -> str:
    """Return a colour, darkened until text in it has this contrast on white, such as "#8a3d00".

    Args:
        colour: As "#rrggbb".
        contrast: The contrast ratio of the Web Content Accessibility Guidelines, 1 to 21.
    """
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    while 1.05 / (luminance(red, green, blue) + 0.05) < contrast:
        red, green, blue = 0.95 * red, 0.95 * green, 0.95 * blue
    return "#" + "".join(f"{round(255 * value):02x}" for value in (red, green, blue))


def luminance(red: float, green: float, blue: float) -> float:
    """Return the relative luminance, 0 to 1, of a colour whose parts are from 0 to 1.

    Reference:
        Web Content Accessibility Guidelines 2.2, definition of relative luminance.
    """
    parts = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in (red, green, blue)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
