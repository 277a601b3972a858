"""The training panel as a person uses it in JupyterLab."""

import io
import re
import time
from collections import Counter

import pytest
from PIL import Image

from .conftest import MINUTE, THEMES, WIDTHS, button, keep, set_theme

DATA = (
    "from qathelpers.data import Dataset, shapes\ndataset = Dataset(*shapes.make(2000, 500), shapes.CLASSES, 'shapes')"
)
PANEL = "from qathelpers.widgets import TrainingPanel\npanel = TrainingPanel(dataset, 'TernaryNN', 'lenet', {})\npanel"


def panels(page):
    return page.locator(".qat-panel")


def field(panel, name):
    return panel.locator(f".widget-text:has-text('{name}') input")


def type_into(field, text):
    field.fill(text)
    field.press("Tab")


@pytest.fixture(scope="module")
def page(open_cells):
    page = open_cells("panel", DATA, PANEL.format(40))
    panels(page).first.wait_for(timeout=2 * MINUTE)
    return page


def test_a_run_is_stopped_and_resumed_with_its_own_settings(page):
    panel = panels(page).last
    assert panel.get_by_text("2,000 training images").is_visible()
    panel.get_by_text(re.compile("about .* (s|min)")).wait_for(timeout=MINUTE)
    keep(page, panel, "panel-new")
    button(panel, "Train").dblclick()  # the second click must not stop it
    panel.get_by_text(re.compile("epoch [2-9] of 40")).wait_for(timeout=MINUTE)
    assert panel.get_by_text(re.compile(r"\d+% done, about .* left")).is_visible()
    start = time.monotonic()
    button(panel, "Stop").click()
    panel.get_by_text(re.compile("Stopped: .* of 40 epochs")).wait_for(timeout=MINUTE)
    print(f"stop latency {time.monotonic() - start:.2f} s")
    assert time.monotonic() - start < 5
    kept = int(re.search(r"Stopped: (\d+) of", panel.inner_text()).group(1))
    keep(page, panel, "panel-stopped")

    type_into(field(panel, "epochs"), "5")
    panel.locator("select").last.select_option("128")
    button(panel, "Train as a new run").wait_for(timeout=MINUTE)
    button(panel, f"Resume after epoch {kept} of 40").click()
    later = "|".join(map(str, range(kept + 1, 41)))
    panel.get_by_text(re.compile(f"epoch ({later}) of 40 · 2,000 images of .* · batch size 256")).wait_for()
    button(panel, "Stop").click()
    button(panel, re.compile(r"Resume after epoch \d+ of 40").pattern).wait_for(timeout=MINUTE)


@pytest.mark.parametrize("typed", ["2.7", "1e3", ""])
def test_numbers_that_are_none_are_refused_in_words(page, typed):
    panel = panels(page).last
    type_into(field(panel, "epochs"), typed)
    panel.locator(".qat-error", has_text="epochs").first.wait_for(timeout=MINUTE)
    type_into(field(panel, "epochs"), "3")
    panel.locator(".qat-error").first.wait_for(state="detached", timeout=MINUTE)


def test_a_new_run_has_a_name_of_its_own_and_the_old_one_stays_as_a_thin_curve(page):
    panel = panels(page).last
    type_into(field(panel, "epochs"), "2")
    button(panel, "Train as a new run").click()
    panel.get_by_text("Done: TernaryNN 2 has a test accuracy").wait_for(timeout=MINUTE)
    assert panel.get_by_text(re.compile(r"^TernaryNN \(lenet, 2,000 images\): ")).is_visible()
    assert panel.locator("svg[aria-label^='Histogram of the latent weights']").is_visible()
    assert panel.get_by_text("weights that are zero").is_visible() and panel.get_by_text("signs flipped").is_visible()
    keep(page, panel, "panel-done")


def test_the_cell_run_again_adopts_the_training_and_so_does_a_reopened_tab(page, open_notebook):
    panel = panels(page).last
    type_into(field(panel, "epochs"), "50")
    button(panel, "Train").click()
    button(panel, "Stop").wait_for(timeout=MINUTE)
    run_cell(page, 1)
    panel = panels(page).last
    panel.get_by_text("was already being trained in this kernel").wait_for(timeout=MINUTE)
    other = open_notebook("panel")  # the tab was closed without saving, and is opened again
    run_cell(other, 1)
    panel = panels(other).last
    panel.get_by_text(re.compile("epoch [1-9][0-9]* of 50")).wait_for(timeout=MINUTE)
    button(panel, "Stop").click()
    panel.get_by_text(re.compile("Stopped")).wait_for(timeout=MINUTE)
    other.close()


def test_stop_works_while_a_cell_waits_and_the_next_cells_run_afterwards(page):
    add_cell(page, "panel.train.click(); print('waiting'); print(panel.wait()); print('the cell is over')")
    panel = panels(page).last
    panel.get_by_text(re.compile("Training TernaryNN")).wait_for(timeout=MINUTE)
    start = time.monotonic()
    button(panel, "Stop").click()
    page.get_by_text("the cell is over", exact=False).last.wait_for(timeout=MINUTE)
    print(f"stop latency while a cell waits {time.monotonic() - start:.2f} s")
    assert time.monotonic() - start < 5


def test_the_kernels_interrupt_ends_the_training_with_a_sentence(page):
    add_cell(page, "panel.train.click(); panel.wait(); print('after the interrupt')")
    panel = panels(page).last
    panel.get_by_text(re.compile("Training TernaryNN")).wait_for(timeout=MINUTE)
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("Interrupt Kernel")).click()
    output = page.locator(".jp-OutputArea-output", has_text="after the interrupt").last
    output.wait_for(timeout=MINUTE)
    assert "was stopped" in output.inner_text() and page.get_by_text("Traceback").count() == 0


def run_cell(page, index):
    page.locator(".jp-Notebook .jp-CodeCell").nth(index).locator(".jp-InputPrompt").click()
    page.keyboard.press("Control+Enter")


def add_cell(page, source):
    """Type a cell below the last one, and run it."""
    page.locator(".jp-Notebook .jp-CodeCell").last.locator(".jp-InputPrompt").click()
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.keyboard.insert_text(source)
    page.keyboard.press("Control+Enter")


@pytest.fixture
def light_again(page):
    yield
    set_theme(page, THEMES[0])
    page.set_viewport_size({"width": 1300, "height": 1000})


@pytest.mark.parametrize("theme", THEMES)
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
