"""The slides: which cells they show, and what a cell's tag changes."""

import re
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from qathelpers.common.errors import CourseError
from tools import slides

PATHS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9]*.ipynb"))


def text(source, *tags):
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)})


def code(source="x", *tags):
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})


def kinds(*cells):
    notebook = nbformat.v4.new_notebook(cells=[text("# 00 Title"), code("# Setup"), *cells])
    return [cell.metadata.slideshow.slide_type for cell in slides.with_slides(notebook).cells][2:]


def test_sections_and_cells_become_slides_and_exercises_are_left_out():
    cells = [text("## A"), text("short"), code(), text("long " * 200), code("w", "shows-photographs"), text("### B")]
    assert kinds(*cells) == ["slide", "-", "subslide", "notes", "skip", "subslide"]
    exercises = [text("## Exercises"), text("**1.** ?"), code(), text("## What we have seen")]
    assert kinds(*exercises) == ["skip", "skip", "skip", "slide"]


@pytest.mark.parametrize("kind", slides.KINDS)
def test_a_tag_decides(kind):
    assert kinds(text("## Exercises", f"slides:{kind}"), code("x", "other", f"slides:{kind}")) == [kind, kind]


def test_imports_and_blanks_are_left_out():
    blank = code("answer = None\n\nch03.q1.check(answer)")
    blank.metadata["exercise"] = "ch03.q1"
    assert kinds(code("import a\nfrom b import c\n"), code("import a\na.b()"), blank) == ["skip", "subslide", "skip"]


def test_an_unknown_tag_is_refused():
    with pytest.raises(CourseError, match=r"slides:slidee.*slides:slide"):
        kinds(text("a", "slides:slidee"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_chapter_has_slides_with_its_figures_and_their_texts(path, tmp_path):
    page = slides.convert(path, tmp_path, tmp_path).read_text(encoding="utf-8")
    notebook = nbformat.read(path, as_version=4)
    assert page.count("<section>") > 5
    loaded = re.findall(r'<script src="([^"]+)"', page) + re.findall(r'<link[^>]*href="([^"]+)"', page)
    assert loaded and not [address for address in loaded if address.startswith(("http", "//"))]
    assert "# Setup, the same in every notebook" not in page
    shown = slides.with_slides(notebook).cells
    figures = [o for c in shown if c.metadata.slideshow.slide_type != "skip" for o in c.get("outputs", [])]
    figures = [output for output in figures if "image/png" in output.get("data", {})]
    tags = [tag for tag in re.findall("<img [^>]*>", page) if 'class="figure"' in tag]
    assert len(tags) == len(figures) and all(re.search('alt="[^"]{20,}"', tag) for tag in tags)


def test_the_command_names_a_missing_notebook(tmp_path):
    result = CliRunner().invoke(slides.main, [str(tmp_path / "none.ipynb")])
    assert result.exit_code == 2 and "none.ipynb" in result.output
