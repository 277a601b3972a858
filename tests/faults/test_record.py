"""Runs that should not be recorded, and a recording that fails half-way: data/ and README.md stay as they are."""

import itertools
import os
import signal
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from qathelpers.common.errors import CourseError
from qathelpers.results import recorded
from qathelpers.training import History, checkpoint
from tools import record as tool

from .conftest import assert_names, contents

README = "# The course \u00b1\n<!-- results: lenet -->\nold\n<!-- end -->\n"


@pytest.fixture
def record(runs, tmp_path, monkeypatch):
    """Return a function that runs the command `record` on the two finished runs, in a checkout of its own."""
    checkout = tmp_path / "checkout"
    target, readme, picture = checkout / "data", checkout / "README.md", checkout / tool.picture.PICTURE
    target.mkdir(parents=True)
    picture.parent.mkdir()
    picture.write_text("<svg/>", encoding="utf-8")
    readme.write_text(README, encoding="utf-8")
    monkeypatch.setattr(tool.commands, "CHECKOUT", checkout)
    monkeypatch.setattr(tool, "RESULTS", readme)
    monkeypatch.setattr(tool.picture, "update", lambda root: [])  # it shows runs on CIFAR-10 only
    monkeypatch.setattr(recorded, "RECORDED", target)
    prepare, markdown = tool.prepare, tool.results.markdown

    def prepare_here(name, arch, **options):
        return prepare(name, arch, "shapes", target=target, **options)

    monkeypatch.setattr(tool, "prepare", prepare_here)
    monkeypatch.setattr(tool.results, "markdown", lambda arch: markdown(arch, "shapes"))

    def record(*arguments):
        result = CliRunner().invoke(tool.main, [*arguments, "--arch", "lenet"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    record.folder, record.runs, record.readme = readme.parent, runs, readme
    return record


def better(runs, **changes):
    history = History.load(runs / "BinaryNN.npy")
    history.config |= changes
    history.save(runs / "BinaryNN.npy")


def test_two_runs_are_recorded_and_the_table_follows(record):
    assert record("BinaryNN", "TernaryNN").exit_code == 0
    text = record.readme.read_text(encoding="utf-8")
    assert "BinaryNN" in text and "TernaryNN" in text and "\u00b1" in text and "old" not in text


# What is wrong, how it comes about, the names, what the message names.
FAULTS = [
    ("one of two is missing", lambda record: None, ["BinaryNN", "MyNN"], ["MyNN.npy"]),
    ("no README", lambda record: record.readme.unlink(), ["BinaryNN"], ["README.md"]),
    ("README in Latin-1", lambda record: record.readme.write_bytes(b"\xb1"), ["BinaryNN"], ["README.md"]),
    ("folder for README", lambda record: (record.readme.unlink(), record.readme.mkdir()), ["BinaryNN"], ["README.md"]),
    (
        "a file where the folder results should be",
        lambda record: (record.folder / "data/results").write_text("", encoding="utf-8"),
        ["BinaryNN"],
        [],
    ),
]


@pytest.mark.parametrize(("spoil", "names", "named"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_nothing_is_written_unless_everything_can_be(record, spoil, names, named):
    spoil(record)
    before = contents(record.folder)
    result = record(*names)
    assert result.exit_code == 1
    assert_names(result.output, named)
    assert contents(record.folder) == before


def test_a_part_of_the_data_is_not_recorded(record, monkeypatch):
    monkeypatch.setitem(tool.WHOLE, "shapes", (20_000, 5_000))
    before = contents(record.folder)
    result = record("BinaryNN")
    assert result.exit_code == 1 and contents(record.folder) == before
    assert_names(result.output, ["QAT_MAX_IMAGES", "60"])


@pytest.mark.parametrize("column", ["test_acc", "epochs"])
def test_a_better_run_is_replaced_only_on_request(record, column):
    assert record("BinaryNN").exit_code == 0
    path = record.folder / "data/results/shapes/lenet/BinaryNN.npy"
    old = History.load(path)
    if column == "test_acc":
        old.config["test_acc"] = 1.0
    else:
        old.append(3, 1, 1, 1, 1, 1)
    old.save(path)
    before = contents(record.folder)
    result = record("BinaryNN")
    assert result.exit_code == 1 and contents(record.folder) == before
    assert_names(result.output, [str(path), "--replace"])
    assert record("BinaryNN", "--replace").exit_code == 0
    assert len(History.load(path)) == 2 and History.load(path).test_acc < 1


@pytest.mark.parametrize("at", range(1, 11))
def test_a_recording_that_fails_half_way_is_undone(record, monkeypatch, at):
    assert record("BinaryNN").exit_code == 0
    before = contents(record.folder)
    replace, calls = os.replace, []

    def fail(source, target):
        calls.append(target)
        if str(target).endswith(".holder"):  # whose lock it is; nothing depends on it
            calls.pop()
        elif len(calls) == at:
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        result = record("BinaryNN", "TernaryNN")
    assert result.exit_code == (1 if len(calls) >= at else 0)
    if result.exit_code:
        assert contents(record.folder) == before


def kill_before(step, function):
    """Call `function` in a child process, which is killed before its `step`-th change of a name in a folder.

    Returns:
        Whether it was killed; False if it ended before.
    """
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left, functions = itertools.count(step - 1, -1), {"replace": os.replace, "unlink": os.unlink}

    def killed(name):
        def act(*arguments, **options):
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            functions[name](*arguments, **options)

        return act

    try:
        for name in functions:
            setattr(os, name, killed(name))
        torch.set_num_threads(1)  # the threads of the process that was forked are not in this one
        function()
        os._exit(0)
    finally:
        os._exit(1)


def test_files_that_a_killed_process_has_replaced_get_their_old_content(tmp_path):
    old, new, journal = tmp_path / "a" / "old", tmp_path / "new", tmp_path / ".undo.zip"
    old.parent.mkdir()
    old.write_bytes(b"1")
    with tool.journal.replaced_together([old, new], journal):
        kept = journal.read_bytes()
        for path in (old, new):
            path.write_bytes(b"2")
            path.with_name(f".{path.name}.12345678").write_bytes(b"half")  # as a kill leaves it
    assert tool.journal.undo(journal) == [] and new.read_bytes() == b"2"
    journal.write_bytes(kept)  # as if the process had been killed before it removed the journal
    with pytest.raises(CourseError, match="undo"), tool.journal.replaced_together([old, new], journal):
        pass
    assert journal.read_bytes() == kept
    assert set(tool.journal.undo(journal)) == {old, new}
    assert contents(tmp_path) == {"a/old": b"1"}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process that is forked")
@pytest.mark.parametrize(
    ("names", "first"),
    [
        pytest.param(["BinaryNN"], False, id="another run was recorded"),
        pytest.param(["BinaryNN", "TernaryNN"], True, id="nothing was recorded"),
    ],
)
def test_a_recording_that_is_killed_at_any_step_is_undone_and_can_be_repeated(runs, tmp_path, names, first):
    target = tmp_path / "data"
    if not first:
        tool.record("BinaryNN", "lenet", "shapes", target=target)
        better(runs, date="2020-01-01")
    recordings = [tool.prepare(name, "lenet", "shapes", target=target) for name in names]
    journal, paths = target / tool.JOURNAL, tool.paths_of(recordings)

    def publish():
        with tool.journal.replaced_together(paths, journal):
            tool.publish(recordings)

    def assert_finished():
        assert set(contents(target)) == {path.relative_to(target).as_posix() for path in paths}
        for one in recordings:
            assert History.load(one.history_path).config == one.history.config
            assert checkpoint.read_config(one.weights_path) == one.history.config

    before, killed, mixed = contents(target), 0, 0
    for step in itertools.count(1):
        if not kill_before(step, publish):
            break
        killed += 1
        for path in paths:  # every file can be read, whether it is the old or the new one
            if path.suffix == ".npy" and path.exists():
                History.load(path)
            if path.suffix == ".safetensors" and path.exists():
                checkpoint.read(path)
        mixed += {path: path.read_bytes() for path in paths if path.exists()} != {
            target / name: content for name, content in before.items()
        }
        tool.journal.undo(journal)
        if contents(target) != before:  # it was killed when all was done
            assert_finished()
            before = contents(target)
    assert_finished()
    assert killed >= 7 and mixed >= 3  # otherwise, the kills hit nothing


SCRIPT = "import sys; from pathlib import Path; from tools import record; record.update_tables(Path(sys.argv[1]))"


@pytest.mark.slow  # another Python has to import PyTorch
@pytest.mark.parametrize("locale", ["C", "en_US.ISO-8859-1"])
def test_the_readme_stays_utf8_in_every_locale(tmp_path, locale):
    path = tmp_path / "README.md"
    path.write_text(README, encoding="utf-8")
    variables = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", SCRIPT, str(path)], env=os.environ | variables, check=True)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# The course \u00b1\n") and "BinaryNN" in text
