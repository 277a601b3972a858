"""The widgets as people use them: in JupyterLab, in a real browser."""

import re

import pytest

from .conftest import button, keep, widget_with


@pytest.mark.slow
def test_the_panel_in_03_is_trained_by_a_cell_and_then_by_the_reader(open_and_run):
    page = open_and_run("03_binary_net")
    panel = widget_with(page, "batch size")
    panel.wait_for()
    panel.get_by_text("Done: BinaryNN").wait_for()  # a cell of the notebook has pressed Train, and waited
    panel.get_by_text("Levels of each layer").click()
    assert "blocks.0.widen.1" in panel.locator("table").inner_text()
    keep(page, panel, "panel-done")
    epochs = panel.locator(".widget-text:has-text('epochs') input")
    epochs.fill("300")
    epochs.press("Tab")
    page.wait_for_timeout(1000)  # the panel ignores the second half of a double click
    button(panel, "Train").click()
    panel.get_by_text(re.compile("epoch [1-9][0-9]* of 300")).wait_for()
    button(panel, "Stop").click()
    panel.get_by_text(re.compile("Stopped: .* of 300 epochs")).wait_for()
    assert button(panel, re.compile(r"Resume after epoch \d+ of 300").pattern).is_visible()
    keep(page, panel, "panel-stopped")
