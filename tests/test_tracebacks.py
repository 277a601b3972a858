"""What a notebook shows of an error: the reader's own line and one sentence, but all of the reader's own mistakes."""

import re

import nbclient
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from qathelpers.common import errors, tracebacks

# A module of the course, one of a library, and one of the reader's own.
COURSE = """
import errno
import pathlib

def load(error):
    raise error

def read(path):
    return pathlib.Path(path).read_bytes()

def call(function):
    return function()

def parse(text):
    try:
        return pathlib.Path(text).read_bytes()
    except OSError as error:
        raise CourseError(f"{text} is missing: do this") from error

def forward(net):
    try:
        return net()
    except Exception as error:
        raise CourseError(f"the net cannot be used ({error})") from error
"""


def plain(lines):
    return re.sub(r"\x1b\[[\d;]*m", "", "\n".join(lines))  # without the codes of colours


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs a cell, and returns the class and the text of what it shows of an error."""
    InteractiveShell.clear_instance()
    shell, shown = InteractiveShell.instance(), []
    monkeypatch.setattr(shell, "_showtraceback", lambda kind, error, lines: shown.append((kind, plain(lines))))
    course, file = {"__name__": "qathelpers.x", "CourseError": errors.CourseError}, tmp_path / "qathelpers" / "x.py"
    file.parent.mkdir()
    file.write_text(COURSE, encoding="utf-8")  # a traceback shows its lines
    exec(compile(COURSE, file, "exec"), course)  # noqa: S102
    shell.push(
        {name: course[name] for name in ("load", "read", "parse", "call", "forward")}
        | {"CourseError": errors.CourseError}
    )
    tracebacks.show_sentences()

    def run(cell):
        shown.clear()
        shell.run_cell(cell)
        ((kind, text),) = shown
        return kind, text

    yield run
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


# A cell, and what is in the sentence that takes the place of the insides of the course.
SENTENCES = {
    "load(CourseError('do this'))": "do this",
    "load(MemoryError())": "memory",
    "load(RuntimeError('DefaultCPUAllocator: can\\'t allocate memory'))": "memory",
    "load(OSError(28, 'No space left on device', '/x/y'))": "/x/y",
    "load(UnicodeEncodeError('ascii', 'L\\u00e4ufe', 1, 2, 'no'))": "PYTHONUTF8",
    "read('no such file')": "no such file",
    "parse('no such file')": "do this",
}


@pytest.mark.parametrize(("cell", "words"), SENTENCES.items(), ids=SENTENCES)
def test_an_error_of_the_course_is_the_line_of_the_cell_and_a_sentence(run, cell, words):
    kind, text = run(f"x = 1\n{cell}")
    assert kind is errors.CourseError and words in text.splitlines()[-1]
    assert cell in text and "qathelpers" not in text and "pathlib" not in text


# Mistakes of the reader, and errors of which nothing is known.
MISTAKES = {
    "open('/nowhere/x')": "FileNotFoundError",
    "raise MemoryError": "MemoryError",
    "1 / 0": "ZeroDivisionError",
    "load(KeyError('a mistake of the course'))": "KeyError",
    "load(RuntimeError('shapes differ'))": "RuntimeError",
    "call(lambda: open('/nowhere/x'))": "FileNotFoundError",
}


@pytest.mark.parametrize(("cell", "name"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_keeps_its_traceback(run, cell, name):
    kind, text = run(cell)
    assert kind.__name__ == name
    assert ("qathelpers" in text) == ("load" in cell or "call" in cell)


def test_a_mistake_in_a_callback_shows_the_line_of_the_callback(run):
    _, text = run("def callback():\n    load(CourseError('do this'))\ncall(callback)")
    assert "call(callback)" in text and "load(CourseError('do this'))" in text and "raise error" not in text


def test_a_mistake_that_the_course_reports_as_its_own_error_shows_its_line(run):
    _, text = run("def net():\n    table = {'a': 1}\n    return table['b']\nforward(net)")
    assert "KeyError" in text and "return table['b']" in text and "the net cannot be used" in text


def test_tb_shows_all_of_it(run):
    run("load(CourseError('do this'))")
    kind, text = run("%tb")
    assert kind is errors.CourseError and "raise error" in text


def test_a_handler_of_the_reader_stays():
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.set_custom_exc((KeyError,), lambda *_: None)
    tracebacks.show_sentences()
    assert shell.custom_exceptions == (KeyError,)
    InteractiveShell.clear_instance()


@pytest.mark.slow
def test_in_a_kernel_a_cell_that_cannot_work_ends_the_notebook_with_a_sentence():
    cells = ["import qathelpers\nqathelpers.setup()", "qathelpers.load('mnist')"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.raises(nbclient.exceptions.CellExecutionError) as raised:
        nbclient.NotebookClient(notebook, timeout=300).execute()
    assert "'mnist'" in str(raised.value) and "cifar10.py" not in str(raised.value)
