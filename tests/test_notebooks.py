"""The form of the notebooks; test_exercises runs them. And what tools.notebooks saves of their output."""

import re
import sys
import types
from pathlib import Path
from unittest import mock

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tools import notebooks as tool

FOLDER = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 1_000_000
FIRST, LAST = "After this notebook you can", "What we have seen"


def sources(notebook, kind):
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def bullets(text):
    return [line for line in text.splitlines() if line.startswith("- ")]


def test_the_course_has_its_notebooks():
    assert [path.name[:2] for path in PATHS] == [f"{number:02d}" for number in range(10)]


def links(notebook):
    """Return the notebooks that the text links to."""
    return set(re.findall(r"\]\((\d\d_\w+\.ipynb)\)", "\n".join(sources(notebook, "markdown"))))


def test_links_lead_to_notebooks_forward_and_back(path, notebook):
    names = [other.name for other in PATHS]
    position = names.index(path.name)
    found = links(notebook)
    assert found <= set(names)
    assert not position or found & set(names[:position]), "it does not say what it builds on"
    assert position == len(names) - 1 or names[position + 1] in found, "it does not say what comes next"


def test_skeleton(path, notebook):
    texts = sources(notebook, "markdown")
    opening = texts[0]
    assert opening.startswith(f"# {path.name[:2]} ")
    assert FIRST in opening and "**Before:**" in opening and "**Time:**" in opening
    assert "CPU" in opening.split("**Time:**")[1] and "T4" in opening.split("**Time:**")[1]
    seen = next(text for text in texts if f"## {LAST}" in text).split(LAST)[1].split("## ")[0]
    assert 3 <= len(bullets(opening)) <= 5
    assert len(bullets(seen)) == len(bullets(opening))
    for heading in ("## Exercises", "## Further reading"):
        assert any(heading in text for text in texts), heading


def test_the_setup_cell_is_the_same_everywhere(path, notebook):
    first, solved = (nbformat.read(file, as_version=4) for file in (PATHS[0], FOLDER / "solutions" / path.name))
    assert notebook.cells[1].source == solved.cells[1].source == first.cells[1].source


@pytest.mark.parametrize("address", ["", "https://a.b/c"])
@pytest.mark.parametrize("cloud", [None, "colab", "kaggle"])
@pytest.mark.parametrize("wheel", [None, "", "other version"])
def test_the_setup_cell_installs_the_course_where_it_can(address, cloud, wheel, monkeypatch, tmp_path):
    setup = nbformat.read(PATHS[0], as_version=4).cells[1].source
    source = re.sub('ADDRESS = "[^"]*"', f'ADDRESS = "{address}"', setup)
    name = re.search('WHEEL = "(.+)"', setup)[1]
    for module in ["qathelpers", *(name for name in sys.modules if name.startswith("qathelpers."))]:
        monkeypatch.setitem(sys.modules, module, None)  # importing it raises ImportError
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    if cloud == "colab":
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    elif cloud == "kaggle":
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    if wheel is not None:
        (tmp_path / name.replace("qathelpers-", "qathelpers-9" if wheel else "qathelpers-")).touch()
    monkeypatch.chdir(tmp_path)
    shell, names = mock.Mock(), {}
    shell.run_line_magic = lambda magic, line: names.update(line=line.format(**names))
    names["get_ipython"] = lambda: shell
    installs = wheel == "" or (address and cloud)
    with pytest.raises(ImportError if installs else SystemExit) as stopped:
        exec(TransformerManager().transform_cell(source), names)  # noqa: S102, the cell is one of the course's own
    if wheel == "":
        assert names["line"] == f'install --quiet "./{name}"'
    elif installs:
        assert re.fullmatch(rf'install --quiet "git\+{address}@v\d+\.\d+\.\d+"', names["line"])
    else:
        assert "line" not in names and name in str(stopped.value)


@pytest.mark.parametrize("folder", ["MyDrive", "MyDrive/a course", "MyDrive/a/b"])
def test_the_setup_cell_finds_the_wheel_on_a_mounted_drive(folder, monkeypatch, tmp_path):
    setup = nbformat.read(PATHS[0], as_version=4).cells[1].source.replace("/content/drive", str(tmp_path))
    name = re.search('WHEEL = "(.+)"', setup)[1]
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / name).touch()
    monkeypatch.setitem(sys.modules, "qathelpers", None)
    names = {"get_ipython": mock.Mock}
    with pytest.raises(SystemExit if "/b" in folder else ImportError):
        exec(TransformerManager().transform_cell(setup), names)  # noqa: S102
    assert names["found"] == ([] if "/b" in folder else [str(tmp_path / folder / name)])


def test_cells_are_short(notebook):
    codes = sources(notebook, "code")
    assert max(len(source.splitlines()) for source in codes) <= 30
    teaching = [
        len(c.source.splitlines()) for c in notebook.cells[2:] if c.cell_type == "code" and "exercise" not in c.metadata
    ]
    assert sum(lines <= 8 for lines in teaching) >= len(teaching) / 2
    for source in codes:
        assert all(len(line) <= 88 for line in source.splitlines()), source


def test_it_is_executed_top_to_bottom_and_clean(path, notebook):
    assert path.stat().st_size < MAX_BYTES
    assert "widgets" not in notebook.metadata
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(codes, start=1):
        assert cell.execution_count == number
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not [output for output in outputs if tool.WIDGET in output.get("data", {})]
    text = "".join(str(output.get("text", "")) for output in outputs)
    assert "\r" not in text
    assert "/home/" not in text and "/root/" not in text and "/Users/" not in text


def test_its_results_are_from_cifar10(notebook):
    text = "".join(str(o.get("text", "")) for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
    if any(re.search(r"\b(data|qathelpers)\.load\(", source) for source in sources(notebook, "code")):
        assert "CIFAR-10: 50,000 training and 10,000 test images" in text
    assert "NOT CIFAR-10" not in text


def test_photographs_are_not_in_the_file(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code" and ("image_grid(" in cell.source or "imshow" in cell.source):
            assert "shows-photographs" in cell.metadata.get("tags", [])
            assert not cell.outputs


def test_figures_have_an_alternative_text_and_a_sentence_beside_them(notebook):
    for position, cell in enumerate(notebook.cells):
        pictures = [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        for picture in pictures:
            alt = picture.metadata.get("image/png", {}).get("alt", "")
            assert len(alt.split()) >= 6, f"no alternative text: {cell.source}"
        neighbours = notebook.cells[position - 1 : position + 2]
        assert not pictures or any(cell.cell_type == "markdown" for cell in neighbours), cell.source


def widget():
    return nbformat.v4.new_output("display_data", {tool.WIDGET: {"model_id": "1"}, "text/plain": "0%|   | 0/10"})


def test_a_widget_is_saved_as_its_preview_alone():
    metadata = {"image/png": {"alt": "A panel that trains a net."}}
    data = {tool.WIDGET: {"model_id": "1"}, "image/png": "...", "text/plain": "A panel."}
    shown = nbformat.v4.new_output("execute_result", data, execution_count=7, metadata=metadata)
    cell = nbformat.v4.new_code_cell("panel", outputs=[shown], metadata={"tags": ["shows-a-widget"]})
    (saved,) = tool.clean(nbformat.v4.new_notebook(cells=[cell])).cells[0].outputs
    assert saved.data == {"image/png": "...", "text/plain": "A panel."} and saved.metadata == metadata
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))


def test_progress_bars_and_tagged_outputs_are_not_saved():
    text = [nbformat.v4.new_output("stream", name="stdout", text=f"{line}\n") for line in ("before", "after")]
    figure = nbformat.v4.new_output("display_data", {"image/png": "..."})
    cells = [nbformat.v4.new_code_cell("train()", outputs=[text[0], widget(), text[1], figure])]
    for tag in tool.TAGS_WITHOUT_OUTPUT:
        cells.append(nbformat.v4.new_code_cell("show()", outputs=[figure], metadata={"tags": [tag]}))
    trained, *tagged = tool.clean(nbformat.v4.new_notebook(cells=[*cells])).cells
    assert [output.get("text") for output in trained.outputs] == ["before\nafter\n", None]
    assert trained.outputs[1].data == figure.data
    assert not any(cell.outputs for cell in tagged)


def test_links_of_the_solutions_lead_out_of_their_folder():
    cells = [nbformat.v4.new_markdown_cell(text) for text in ("# 00 Title\n", "[a](../docs/a.md), [b](01_b.ipynb)")]
    course, solved = tool.split(nbformat.v4.new_notebook(cells=cells))
    assert course.cells[1].source == cells[1].source
    assert solved.cells[1].source == "[a](../../docs/a.md), [b](01_b.ipynb)"


def test_deterministic_cells_are_compared(notebook):
    if notebook.cells[0].source.startswith(("# 00", "# 02", "# 03", "# 04")):
        assert any("nbval-check-output" in cell.metadata.get("tags", []) for cell in notebook.cells)


def test_the_index_of_questions_points_to_sections_that_exist():
    page = (FOLDER.parent / "docs" / "questions.md").read_text(encoding="utf-8")
    table = page.split("## What users of Brevitas ask")[1].split("\n## ")[0]
    rows = re.findall(r"^\| .+\? \| (\d\d), (.+) \|$|^\| .+ \| (\d\d), (.+) \|$", table, re.MULTILINE)
    answers = [(a or c, b or d) for a, b, c, d in rows]
    assert len(answers) >= 12
    for number, sections in answers:
        (path,) = FOLDER.glob(f"{number}_*.ipynb")
        text = "\n".join(sources(nbformat.read(path, as_version=4), "markdown"))
        for section in re.findall(r"\*([^*]+)\*", sections):
            assert re.search(rf"^(##.*|\*\*){re.escape(section)}", text, re.MULTILINE), (number, section)
