"""The package and its tools also run on Windows: no POSIX-only calls, no encoding left to the system, odd paths."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for room in ("qathelpers", "tools") for path in (ROOT / room).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

POSIX_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": {"fork", "forkpty", "geteuid", "getuid", "getgid", "getegid", "getpgid", "kill", "killpg", "mkfifo", "nice"}
    | {"chown", "lchown", "setsid", "setuid", "uname", "wait", "sysconf", "sched_getaffinity", "O_CLOEXEC"},
    "signal": {"SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGCHLD", "alarm", "setitimer", "pause"},
}
POSIX_OPTIONS = {"preexec_fn", "start_new_session", "process_group", "pass_fds"}
POSIX_FOLDERS = ("/tmp", "/dev/", "/proc/", "/var/", "/etc/")  # noqa: S108
TEXT = {"read_text", "write_text"}  # methods that need an encoding


def calls_hasattr(tree):
    """Return the names that the module asks for with hasattr before it uses them."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) == 2]
    named = [call.args[1] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "hasattr"]
    return {argument.value for argument in named if isinstance(argument, ast.Constant)}


def existence_is_tested(tree):
    return any(isinstance(node, ast.Attribute) and node.attr in ("exists", "is_file") for node in ast.walk(tree))


def is_posix_folder(value):
    return isinstance(value, str) and value.startswith(POSIX_FOLDERS) and " " not in value


def mode(call, position):
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] + call.args[position : position + 1]
    return given[0].value if given and isinstance(given[0], ast.Constant) and isinstance(given[0].value, str) else "r"


def lacks_encoding(call):
    """Return whether a call opens a text file with the encoding of the system."""
    if {"encoding", None} & {keyword.arg for keyword in call.keywords}:
        return False
    function = call.func
    if isinstance(function, ast.Name):
        return function.id == "open" and "b" not in mode(call, 1)
    if not isinstance(function, ast.Attribute):
        return False
    if function.attr in TEXT:
        return len(call.args) < (1 if function.attr == "read_text" else 2)
    owner = function.value.id if isinstance(function.value, ast.Name) else None
    of_a_path = not call.args or isinstance(call.args[0], ast.Constant)  # its first argument is the mode, not a name
    if (
        function.attr == "open"
        and of_a_path
        and owner not in ("os", "gzip", "tarfile", "zipfile", "Image", "Run", "webbrowser")
    ):
        return "b" not in mode(call, 0)
    return False


def posix_only(source):
    """Return a sentence for each place of a module that does not work on Windows."""
    tree = ast.parse(source)
    asked, found = calls_hasattr(tree), []
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            found += [f"{line}: {a.name}" for a in node.names if a.name in POSIX_MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = POSIX_NAMES.get(node.module, set())
            found += [f"{line}: {node.module}" for _ in [0] if node.module in POSIX_MODULES]
            found += [f"{line}: {a.name}" for a in node.names if a.name in names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in POSIX_NAMES.get(node.value.id, ()) and node.attr not in asked:
                found.append(f"{line}: {node.value.id}.{node.attr}")
        elif isinstance(node, ast.Call):
            options = {keyword.arg for keyword in node.keywords}
            found += [f"{line}: {option}" for option in sorted(POSIX_OPTIONS & options)]
            shell = [keyword for keyword in node.keywords if keyword.arg == "shell"]
            found += [f"{line}: shell" for keyword in shell if getattr(keyword.value, "value", True)]
            if lacks_encoding(node):
                found.append(f"{line}: no encoding")
        elif isinstance(node, ast.Constant) and is_posix_folder(node.value) and not existence_is_tested(tree):
            found.append(f"{line}: {node.value}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_needs_posix_or_the_encoding_of_the_system(path):
    assert posix_only(path.read_text(encoding="utf-8")) == []


def imported(source):
    """Return a module without the insides of its functions: pytest runs only the rest before it can skip a test."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(tree))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_test_module_can_be_imported_on_windows_and_names_its_encodings(path):
    source = path.read_text(encoding="utf-8")
    names = POSIX_MODULES | {f"{module}.{name}" for module, found in POSIX_NAMES.items() for name in found}
    at_import = [found for found in posix_only(imported(source)) if found.split(": ")[1] in names]
    encodings = [found for found in posix_only(source) if found.endswith("no encoding")]
    assert at_import + encodings == []


def test_what_a_function_does_is_not_run_at_import():
    inside = "import os\ndef f():\n    os.kill(1, 9)\n"
    assert posix_only(inside) and posix_only(imported(inside)) == []
    assert len(posix_only(imported(inside + "os.kill(1, 9)\n"))) == 1


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import fcntl", 1),
        ("from pwd import getpwnam", 1),
        ("from signal import SIGKILL", 1),
        ("import os\nos.kill(1, 9)", 1),
        ("import os\nuser = os.geteuid() if hasattr(os, 'geteuid') else None", 0),
        ("import signal\nsignal.signal(signal.SIGINT, f)", 0),
        ("run(c, preexec_fn=f)", 1),
        ("run(c, shell=True)", 1),
        ("run(c, shell=False)", 0),
        ("open('/tmp/x', 'rb')", 1),
        ("p = Path('/proc/x')\np.exists()", 0),
        ("open(p)", 1),
        ("open(p, 'w')", 1),
        ("open(p, mode='rb')", 0),
        ("open(p, encoding='utf-8')", 0),
        ("open(p, **options)", 0),
        ("p.read_text()", 1),
        ("p.write_text('x')", 1),
        ("p.write_text('x', 'utf-8')", 0),
        ("p.open('w')", 1),
        ("p.open('wb')", 0),
        ("import tarfile\ntarfile.open(p)", 0),
        ("import gzip\ngzip.open(p)", 0),
        ("opener().open(request, timeout=3)", 0),
    ],
)
def test_what_needs_posix_is_found(source, count):
    assert len(posix_only(source)) == count


# A Windows console of Western Europe, as far as Linux can stand in for it: output in cp1252, and a file that is opened
# without an encoding cannot hold anything but ASCII.
WINDOWS = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": "cp1252:strict"}


@pytest.fixture
def odd_folder(tmp_path):
    folder = tmp_path / "Müllers Läufe & Daten"
    folder.mkdir()
    return folder


@pytest.fixture
def windows(odd_folder):
    """Return a function that runs Python as a Windows console would, in a folder whose name has blanks and umlauts."""
    settings = {"QAT_DATA": "shapes", "QAT_MAX_IMAGES": "200", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    folders = {"QAT_CACHE_DIR": str(odd_folder / "cache"), "QAT_RESULTS_DIR": str(odd_folder / "runs")}

    def call(*arguments):
        command = [sys.executable, "-X", "warn_default_encoding", *arguments]
        return subprocess.run(
            command, env=os.environ | settings | folders | WINDOWS, capture_output=True, cwd=odd_folder, timeout=300
        )

    return call


# One process for all commands, because importing torch takes most of the time.
COMMANDS = """
from qathelpers.__main__ import main
train = ["train", "-n", "1", "--arch", "lenet", "--name", "TernaryNN"]
compare = ["compare", "--data", "shapes", "--arch", "lenet"]
for command in (["check"], ["data"], ["compare", "--recorded"], train, compare):
    try:
        main(command, prog_name="qat")
    except SystemExit as end:
        assert not end.code, (command, end.code)
"""


def test_the_commands_run_with_an_old_encoding_and_odd_paths(windows, odd_folder):
    result = windows("-c", COMMANDS)
    output = result.stderr.decode("cp1252", "replace")
    assert result.returncode == 0, output
    assert "levels of the quantized weights" in result.stdout.decode("cp1252")
    assert (odd_folder / "runs" / "shapes" / "lenet" / "TernaryNN.npy").is_file()
    warned = [line for line in output.splitlines() if "EncodingWarning" in line]
    assert not [line for line in warned if f"{os.sep}qathelpers{os.sep}" in line], warned


SPAWNED = """
import multiprocessing

def train(name):
    from qathelpers import data
    from qathelpers.results import load_or_train
    _, history = load_or_train(name, data.load("shapes"), 1, arch="lenet")
    return len(history)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        print(pool.map(train, ["BinaryNN", "TernaryNN"]))
"""


@pytest.mark.slow
def test_spawned_processes_train_beside_each_other(windows, odd_folder):
    (odd_folder / "train.py").write_text(SPAWNED, encoding="utf-8")
    result = windows("train.py")
    assert result.returncode == 0, result.stderr.decode("cp1252", "replace")
    assert result.stdout.decode("cp1252").rstrip().endswith("[1, 1]")
