"""The explorer, the guesser, the comparison and the bit budget as people use them, in a real browser."""

import io
import re

import pytest
from PIL import Image

from qathelpers.widgets.style import luminance

from .conftest import THEMES, WIDTHS, button, keep, set_theme

CELLS = {
    "explorer": "from qathelpers.widgets import QuantizerExplorer\nQuantizerExplorer()",
    "comparison": (
        "from qathelpers import recorded_histories\nfrom qathelpers.widgets import Comparison\n"
        "Comparison(recorded_histories('convnet'))"
    ),
    "guesser": (
        "from qathelpers import nets\nfrom qathelpers.data import Dataset, shapes\n"
        "from qathelpers.widgets import PictureGuesser\n"
        "data = Dataset(*shapes.make(400, 200), shapes.CLASSES, 'shapes')\n"
        "PictureGuesser(data, {name: nets.build(name, 'lenet') for name in ('PytorchNN', 'TernaryNN', 'BinaryNN')})"
    ),
    "budget": "from qathelpers.widgets import BitBudget\nBitBudget(data, 40)",
}


@pytest.fixture(scope="module")
def page(open_cells):
    page = open_cells("small_widgets", *CELLS.values(), width=WIDTHS[0], height=1000)
    page.locator(".qat").nth(len(CELLS) - 1).wait_for()
    page.locator(".qat", has_text="Train this net").wait_for()
    return page


@pytest.fixture
def widget(page):
    """A function that returns a widget by its name in `CELLS`."""
    return lambda name: page.locator(".qat").nth(list(CELLS).index(name))


def pictures(widget):
    return [image.get_attribute("src") for image in widget.locator("img").all()]


def until_changed(page, widget, before):
    """Wait until all pictures of a widget differ from `before`."""
    page.wait_for_function(
        "([widget, before]) => [...widget.querySelectorAll('img')].every((img, n) => img.src != before[n])",
        arg=[widget.element_handle(), before],
    )


def until_rows(page, widget, names):
    """Wait until the rows of a table are these."""
    page.wait_for_function(
        "([widget, names]) => [...widget.querySelectorAll('tbody th')].map(th => th.innerText).join() == names.join()",
        arg=[widget.element_handle(), names],
    )


def test_the_explorer_follows_a_slider_and_a_preset(page, widget):
    explorer = widget("explorer")
    before = pictures(explorer)
    explorer.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    until_changed(page, explorer, before)
    explorer.locator(".qat-tile", has_text="levels in use").get_by_text("▲ from 3").wait_for()
    button(explorer, "ternary 0\\.7").click()
    explorer.get_by_text("A higher threshold makes more zeros").wait_for()
    button(explorer, "best scale").focus()
    page.keyboard.press("Enter")
    explorer.get_by_text(re.compile("▼ from .*%")).first.wait_for()


def test_the_comparison_shows_exactly_what_is_ticked_after_many_quick_clicks(page, widget):
    comparison = widget("comparison")
    boxes = comparison.locator("input[type=checkbox]")
    for number in (0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 0):
        boxes.nth(number).click()
    until_rows(page, comparison, ["PytorchNN"])
    button(comparison, "all").click()
    comparison.locator("tbody tr").nth(6).wait_for()
    assert all(boxes.nth(number).is_checked() for number in range(7))
    button(comparison, "test").click()
    comparison.locator("th[aria-sort=descending]").wait_for(state="attached")
    found = [float(cell.inner_text()) for cell in comparison.locator("tbody td:nth-child(5)").all()]
    assert found == sorted(found, reverse=True)
    button(comparison, "weights only").click()
    until_rows(page, comparison, ["TernaryNN", "BinaryNN"])


def test_the_guesser_filters_steps_and_takes_a_photo(page, widget):
    guesser = widget("guesser")
    show = guesser.locator("select").first
    show.select_option(label=show.locator("option", has_text="all nets are wrong").inner_text())
    guesser.get_by_text(re.compile("Image 1 of the .* that match")).wait_for()
    guesser.get_by_text("✗ wrong").nth(2).wait_for()
    assert guesser.get_by_text("✓ right").count() == 0
    button(guesser, "next →").click()
    guesser.get_by_text(re.compile("Image 2 of the .* that match")).wait_for()
    photo = io.BytesIO()
    Image.linear_gradient("L").resize((400, 300)).save(photo, "PNG")
    for name, content, said in (
        ("sky.png", photo.getvalue(), "sky.png: the nets see the part inside the frame"),
        ("notes.png", b"no picture", "notes.png is not a picture"),
    ):
        with page.expect_file_chooser() as chooser:
            guesser.locator("button", has_text="upload photo").click()
        chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})
        guesser.get_by_text(said).wait_for()
        keep(page, guesser, f"guesser-{name}")
    assert guesser.locator("table").count() == 0  # the answers for the photo before are gone
    assert not any(image.is_visible() for image in guesser.locator("img").all())
    button(guesser, "back to the test images").click()
    guesser.get_by_text(re.compile("Image 2 of the .* that match")).wait_for()


def test_the_budget_says_what_fits_and_trains_it(page, widget):
    budget = widget("budget")
    budget.get_by_text("the net fits").wait_for()
    handles = budget.locator(".noUi-handle")
    handles.nth(4).focus()  # the width of the last block
    page.keyboard.press("End")
    budget.get_by_text("more than the budget of 40 kB").first.wait_for()
    button(budget, "Train this net").click()
    budget.get_by_text("Choose fewer bits or narrower blocks").wait_for()
    handles.nth(4).focus()
    page.keyboard.press("Home")
    budget.get_by_text("the net fits").wait_for()
    button(budget, "Train this net").click()
    budget.get_by_text("is being trained below").wait_for()
    page.locator("button:visible", has_text=re.compile("^Stop$")).last.click()


def ratio(one, other):
    """The contrast ratio of two colours (red, green, blue), 0 to 255."""
    high, low = sorted((luminance(*(part / 255 for part in colour)) for colour in (one, other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def contrast(locator):
    """The largest contrast between the background of a screenshot, its most frequent colour, and any other pixel."""
    with Image.open(io.BytesIO(locator.screenshot())) as image:
        colours = sorted(image.convert("RGB").getcolors(2**24), reverse=True)
    return max(ratio(colours[0][1], colour) for _, colour in colours)


TEXTS = {
    "explorer": [".qat-tile", ".qat-tile .qat-quiet", ".widget-label", ".widget-readout", "button", "[role=status]"],
    "comparison": ["label.widget-label-basic", "tbody td", "button"],
    "guesser": [".qat-bad", "td .qat-quiet", "table td", "[role=status]", ".widget-label"],
    "budget": [".qat-tile", ".qat-meter > :first-child", ".qat-key", "[role=status]", ".mod-primary"],
}


LOOKS = [
    (THEMES[1], WIDTHS[-1:]),
    *(pytest.param(theme, WIDTHS, marks=pytest.mark.slow) for theme in THEMES),
]


@pytest.mark.parametrize(("theme", "widths"), LOOKS)
def test_readable_in_a_theme_at_its_widths(page, widget, theme, widths):
    set_theme(page, theme)
    button(widget("explorer"), "8 bits, largest").click()  # so that the tiles have changes to show
    widget("explorer").get_by_text("hardly visible").wait_for()
    try:
        for width in widths:
            page.set_viewport_size({"width": width, "height": 1000})
            for name in CELLS:
                one = widget(name)
                keep(page, one, f"{name}-{width}-{theme.split()[-1]}")
                check_layout(page, one, name)
                for selector in TEXTS[name]:
                    text = one.locator(f"{selector}:visible").first
                    text.scroll_into_view_if_needed()
                    found = contrast(text)
                    print(f"{theme}, {width} px, {name}, {selector}: contrast {found:.1f}")
                    assert found >= 4.5, (theme, width, name, selector, found)
                check_focus(page, one, name)
    finally:
        set_theme(page, THEMES[0])
        page.set_viewport_size({"width": WIDTHS[0], "height": 1000})


def check_layout(page, widget, name):
    """Check that pictures keep their proportions, and that nothing is cut off or squeezed."""
    for image in widget.locator("img:visible").all():
        shape = image.evaluate("img => [img.width / img.height, img.naturalWidth / img.naturalHeight]")
        assert shape[0] == pytest.approx(shape[1], rel=0.03), name
    overflow = widget.evaluate("""widget => [...widget.querySelectorAll('button, label')].filter(
        part => part.offsetParent && part.scrollWidth > part.clientWidth + 2).map(part => part.innerText)""")
    assert not overflow, (name, overflow)
    tracks = widget.locator(".noUi-target:visible").evaluate_all("all => all.map(one => one.clientWidth)")
    assert all(track > 60 for track in tracks), (name, tracks)


def check_focus(page, widget, name):
    """Check that the focus of a button stands out from the background by 3 : 1."""
    first = widget.locator("button:visible").first
    first.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    outline = first.evaluate("one => [getComputedStyle(one).outlineColor, getComputedStyle(one).outlineWidth]")
    shown = [int(part) for part in re.findall(r"\d+", outline[0])[:3]]
    back = page.evaluate("""() => { const one = document.querySelector('.jp-Notebook');
        return getComputedStyle(one).backgroundColor }""")
    background = [int(part) for part in re.findall(r"\d+", back)[:3]]
    assert ratio(shown, background) >= 3 and outline[1] == "3px", (name, outline, back)
