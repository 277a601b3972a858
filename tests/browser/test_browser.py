"""The widgets as people use them: in JupyterLab, in a real browser."""

import re
import time

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
