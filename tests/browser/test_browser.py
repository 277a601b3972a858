"""The widgets as people use them: in JupyterLab, in a real browser."""

import io
import re
import time

from PIL import Image

from .conftest import MINUTE, button, keep, widget_with


def test_the_panel_in_03_trains_stops_and_resumes(open_and_run):
    page = open_and_run("03_binary_net")
    panel = widget_with(page, "batch size")
    panel.wait_for(timeout=4 * MINUTE)
    # A cell of the notebook presses Train too; the reader has to wait for that training.
    panel.get_by_text("Done: BinaryNN").wait_for(timeout=3 * MINUTE)
    epochs = panel.locator(".widget-text:has-text('epochs') input")
    epochs.fill("2")
    epochs.press("Enter")
    button(panel, "Train").click()
    panel.get_by_text(re.compile("Training: .* left")).wait_for(timeout=MINUTE)
    assert button(panel, "Train").is_disabled() and button(panel, "Stop").is_enabled()
    panel.get_by_text(re.compile(r"Done: BinaryNN .* 0\.\d+ after 2 epochs")).wait_for(timeout=2 * MINUTE)
    assert panel.locator("img").evaluate("image => image.naturalWidth") == 810
    assert "blocks.0.widen.1" in panel.inner_text()
    keep(page, panel, "panel-done")

    epochs.fill("50")
    epochs.press("Enter")
    button(panel, "Train").click()
    panel.get_by_text("BinaryNN epoch 2/50").wait_for(timeout=2 * MINUTE)
    start = time.monotonic()
    button(panel, "Stop").click()
    panel.get_by_text(re.compile("Stopped: .* of 50 epochs")).wait_for(timeout=MINUTE)
    assert time.monotonic() - start < 10
    assert button(panel, "Resume").is_enabled() and button(panel, "Stop").is_disabled()
    keep(page, panel, "panel-stopped")
    button(panel, "Resume").click()
    panel.get_by_text("resumed after epoch").wait_for(timeout=MINUTE)
    button(panel, "Stop").click()
    panel.get_by_text(re.compile("Stopped: .* of 50 epochs")).wait_for(timeout=MINUTE)


def test_the_explorer_in_02_follows_its_controls(open_and_run):
    page = open_and_run("02_what_a_quantizer_does")
    explorer = widget_with(page, "narrow range")
    explorer.wait_for(timeout=3 * MINUTE)
    explorer.get_by_text("3 levels in use").wait_for(timeout=MINUTE)
    picture = explorer.locator("img").get_attribute("src")
    explorer.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    explorer.get_by_text(re.compile("[4-7] levels in use")).wait_for(timeout=MINUTE)
    assert explorer.locator("img").get_attribute("src") != picture
    keep(page, explorer, "explorer")


def test_the_guesser_in_06_takes_a_photo(open_and_run):
    page = open_and_run("06_results_comparison")
    guesser = widget_with(page, "disagree →")
    guesser.wait_for(timeout=4 * MINUTE)
    button(guesser, "disagree →").click()
    guesser.get_by_text(re.compile("Test image [1-9]")).wait_for(timeout=MINUTE)
    keep(page, guesser, "guesser")
    photo = io.BytesIO()
    Image.linear_gradient("L").resize((400, 300)).save(photo, "PNG")
    file = {"name": "sky.png", "mimeType": "image/png", "buffer": photo.getvalue()}
    with page.expect_file_chooser(timeout=MINUTE) as chooser:
        guesser.locator("button", has_text="upload photo").click()
    chooser.value.set_files(file)
    guesser.get_by_text("sky.png").first.wait_for(timeout=MINUTE)
    assert guesser.get_by_text("%").count() >= 9
    keep(page, guesser, "guesser-upload")

    comparison = widget_with(page, "BinaryNN (W1A32)")
    before = comparison.locator("img").first.get_attribute("src")
    comparison.get_by_text("BinaryNN (W1A32)").click()
    page.wait_for_function(
        "([image, before]) => image.src != before", arg=[comparison.locator("img").first.element_handle(), before]
    )
    keep(page, comparison, "comparison")
