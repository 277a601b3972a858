"""The training panel as a person uses it in JupyterLab."""

import io
import re
from collections import Counter

import pytest
from PIL import Image

from .conftest import THEMES, WIDTHS, button, keep, set_theme

DATA = (
    "from qathelpers.data import Dataset, shapes\ndataset = Dataset(*shapes.make(1000, 300), shapes.CLASSES, 'shapes')"
)
PANEL = "from qathelpers.widgets import TrainingPanel\npanel = TrainingPanel(dataset, 'TernaryNN', 'lenet', {})\npanel"


def panels(page):
    return page.locator(".qat-panel")


def field(panel, name):
    return panel.locator(f".widget-text:has-text('{name}') input")


def press(panel, name):
    """Click on a button that has been there for a second: the panel ignores the second half of a double click."""
    button(panel, name).wait_for()
    panel.page.wait_for_timeout(1000)
    button(panel, name).click()


def type_into(field, text):
    field.fill(text)
    field.press("Tab")


@pytest.fixture(scope="module")
def page(open_cells):
    page = open_cells("panel", DATA, PANEL.format(400))
    panels(page).first.wait_for()
    return page


def test_a_run_is_stopped_and_resumed_with_its_own_settings(page):
    panel = panels(page).last
    assert panel.get_by_text("1,000 training images").is_visible()
    panel.get_by_text(re.compile("about .* (s|min)")).wait_for()
    keep(page, panel, "panel-new")
    button(panel, "Train").dblclick()  # the second click must not stop it
    panel.get_by_text(re.compile("epoch ([2-9]|[1-9][0-9]+) of 400")).wait_for()
    assert panel.get_by_text(re.compile(r"\d+% done, about .* left")).is_visible()
    press(panel, "Stop")
    panel.get_by_text(re.compile("Stopped: .* of 400 epochs")).wait_for()
    kept = int(re.search(r"Stopped: (\d+) of", panel.inner_text()).group(1))
    keep(page, panel, "panel-stopped")

    type_into(field(panel, "epochs"), "5")
    panel.locator("select").last.select_option("128")
    button(panel, "Train as a new run").wait_for()
    press(panel, f"Resume after epoch {kept} of 400")
    later = "|".join(map(str, range(kept + 1, 401)))
    panel.get_by_text(re.compile(f"epoch ({later}) of 400 · 1,000 images of .* · batch size 256")).wait_for()
    press(panel, "Stop")
    button(panel, re.compile(r"Resume after epoch \d+ of 400").pattern).wait_for()


@pytest.mark.parametrize("typed", ["2.7", "1e3", ""])
def test_numbers_that_are_none_are_refused_in_words(page, typed):
    panel = panels(page).last
    type_into(field(panel, "epochs"), typed)
    panel.locator(".qat-error", has_text="epochs").first.wait_for()
    type_into(field(panel, "epochs"), "3")
    panel.locator(".qat-error").first.wait_for(state="detached")


def test_a_new_run_has_a_name_of_its_own_and_the_old_one_stays_as_a_thin_curve(page):
    panel = panels(page).last
    type_into(field(panel, "epochs"), "2")
    press(panel, "Train as a new run")
    panel.get_by_text("Done: TernaryNN 2 has a test accuracy").wait_for()
    assert panel.get_by_text(re.compile(r"^TernaryNN \(lenet, 1,000 images\): ")).is_visible()
    assert panel.locator("svg[aria-label^='Histogram of the latent weights']").is_visible()
    assert panel.get_by_text("weights that are zero").is_visible() and panel.get_by_text("signs flipped").is_visible()
    keep(page, panel, "panel-done")


def test_the_cell_run_again_adopts_the_training_and_so_does_a_reopened_tab(page, open_notebook):
    panel = panels(page).last
    type_into(field(panel, "epochs"), "400")
    press(panel, "Train")
    panel.get_by_text(re.compile("Training TernaryNN")).wait_for()  # it replaces what the new panel says
    run_cell(page, 1)
    panel = panels(page).last
    panel.get_by_text("was already being trained in this kernel").wait_for()
    other = open_notebook("panel")  # the tab was closed without saving, and is opened again
    run_cell(other, 1)
    panel = panels(other).last
    panel.get_by_text(re.compile("epoch [1-9][0-9]* of 400")).wait_for()
    press(panel, "Stop")
    panel.get_by_text(re.compile("Stopped")).wait_for()
    other.close()


def test_stop_works_while_a_cell_waits_and_the_next_cells_run_afterwards(page):
    panel = panels(page).last
    add_cell(page, "panel.train.click(); print(panel.wait(), 'the cell is over')")
    panel.get_by_text(re.compile("Training TernaryNN")).wait_for()
    add_cell(page, "print('next cell', panel.running)")
    press(panel, "Stop")
    output(page, "True the cell is over").wait_for()
    output(page, "next cell False").wait_for()
    panel.get_by_text(re.compile("^Stopped")).wait_for()


def test_the_kernels_interrupt_ends_the_training_with_a_sentence(page):
    panel = panels(page).last
    add_cell(page, "panel.train.click(); panel.wait(); print('after the interrupt')")
    panel.get_by_text(re.compile("Training TernaryNN")).wait_for()
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("Interrupt Kernel")).click()
    said = output(page, "after the interrupt")
    said.wait_for()
    assert "was stopped" in said.inner_text() and page.get_by_text("Traceback").count() == 0
    panel.get_by_text(re.compile("^Stopped")).wait_for()


def output(page, text):
    """What a cell has printed; its source may contain the same text."""
    return page.locator(".jp-OutputArea-output", has_text=text).last


def run_cell(page, index):
    page.locator(".jp-Notebook .jp-CodeCell").nth(index).locator(".jp-InputPrompt").click()
    page.keyboard.press("Control+Enter")


def add_cell(page, source):
    """Type a cell below the last one, and run it."""
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    count = cells.count()
    cells.last.locator(".jp-InputPrompt").click()
    page.keyboard.press("b")
    editor = cells.nth(count).locator(".cm-content")
    editor.click()
    page.keyboard.insert_text(source)
    editor.get_by_text(source).wait_for()
    page.keyboard.press("Control+Enter")


@pytest.fixture
def light_again(page):
    yield
    set_theme(page, THEMES[0])
    page.set_viewport_size({"width": 1300, "height": 1000})


@pytest.mark.parametrize("theme", [pytest.param(THEMES[0], marks=pytest.mark.slow), THEMES[1]])
def test_it_is_readable_at_each_width(page, light_again, theme):
    set_theme(page, theme)
    panel = panels(page).last
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_timeout(500)
        keep(page, panel, f"panel-{width}-{theme.split()[-1]}")
        box = panel.bounding_box()
        parts = "select:visible, input[type=text]:visible, button:visible, .qat-chart:visible, .qat-legend:visible"
        for part in panel.locator(parts).all():
            inner = part.bounding_box()
            assert inner["x"] >= box["x"] - 1 and inner["x"] + inner["width"] <= box["x"] + box["width"] + 1, width
        for label in panel.locator(".widget-label:visible").all():
            assert label.evaluate("label => label.scrollWidth <= label.clientWidth + 1"), label.inner_text()
        for chart in panel.locator("svg[role=img]:visible").all():
            inner = chart.bounding_box()
            shape = chart.evaluate("svg => svg.viewBox.baseVal.height / svg.viewBox.baseVal.width")
            assert inner["height"] == pytest.approx(inner["width"] * shape, rel=0.02) and inner["width"] >= 280
        if width == WIDTHS[0]:
            check_contrast(page, panel)


def check_contrast(page, panel):
    """Check the contrast of what the browser has drawn: texts, the lines of the legend, bars, and the focus."""
    texts = ".widget-label, .qat-title, .qat-number, .qat-quiet, button, [class*='Collapse-header'], [role=status]"
    for text in panel.locator(texts).all():
        if text.is_visible() and text.inner_text().strip():
            assert strongest_contrast(pixels(text)) >= 4.5, text.inner_text()
    for line in panel.locator(".qat-legend svg").all():
        assert strongest_contrast(pixels(line)) >= 3
    counts = colours(pixels(panel.locator("svg[aria-label^='Histogram']")))
    background, total = counts.most_common(1)[0][0], sum(counts.values())
    bars = [colour for colour, count in counts.items() if colour != background and count > 0.02 * total]
    assert len(bars) >= 2 and all(contrast(bar, background) >= 3 for bar in bars)
    field(panel, "epochs").focus()
    for _ in range(5):  # the batch size, the slider and its number, the seed and the button
        page.keyboard.press("Tab")
        box = page.evaluate("() => document.activeElement.getBoundingClientRect().toJSON()")
        around = {"x": box["x"] - 7, "y": box["y"] + box["height"] / 2, "width": 6, "height": 2}
        edge = Image.open(io.BytesIO(page.screenshot(clip=around))).convert("RGB")
        assert strongest_contrast(edge) >= 3, page.evaluate("() => document.activeElement.outerHTML")


def pixels(locator):
    return Image.open(io.BytesIO(locator.screenshot())).convert("RGB")


def colours(image):
    """The number of pixels of each colour."""
    return Counter({colour: count for count, colour in image.getcolors(image.width * image.height)})


def strongest_contrast(image):
    """The contrast of the background, the most frequent colour, with the colour that differs most from it."""
    counts = colours(image)
    background = counts.most_common(1)[0][0]
    return max(contrast(colour, background) for colour in counts)


def contrast(one, other):
    """The contrast ratio of two colours, as the Web Content Accessibility Guidelines define it."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour):
    parts = [value / 255 for value in colour]
    parts = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
