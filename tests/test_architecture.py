"""The layers of the package: a room (subpackage) imports only from floors below it, and no imports form a cycle."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "qathelpers"

# From the ground up. Rooms on one floor do not import each other.
FLOORS = (
    {"common"},
    {"data", "nets"},
    {"training"},
    {"results", "analysis"},
    {"exercises"},
    {"deploy", "widgets"},
    {"__init__"},
    {"__main__"},
)
ROOMS = set().union(*FLOORS[:-2])


def module_name(path, root):
    """Return the dotted name of the module at `path`; that of a package ends with its name."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(package):
    """Return the path of every module of `package`, by its dotted name."""
    return {module_name(path, package.parent): path for path in sorted(package.rglob("*.py"))}


def imports(name, path, known):
    """Return what the module `name` imports, as (dotted name, line); a module in `known` by its full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):  # also visits functions and `if TYPE_CHECKING`
        if isinstance(node, ast.Import):
            found |= {(alias.name, node.lineno) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # `from ..nets import weights` imports the module, `... import build` the room
                submodule = f"{source}.{alias.name}"
                found.add((submodule if submodule in known else source, node.lineno))
    return found


def room(name):
    """Return the room of a module; for a module that is in no room, its own name."""
    return [*name.split("."), "__init__"][1]


def floor(room):
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


def forbidden_imports(package):
    """Return a sentence for each import between rooms that the floors forbid."""
    known = modules(package)
    sentences = []
    for name, path in known.items():
        for target, line in sorted(imports(name, path, known)):
            own, other = room(name), room(target)
            if target.split(".")[0] != package.name or own == other:
                continue
            if floor(other) is None or floor(other) >= floor(own):
                sentences.append(
                    f"{path.relative_to(package.parent).as_posix()}:{line}: {own} must not import {target}"
                )
    return sentences


def cycles(package):
    """Return the cycles of imports between modules, each as "a -> b -> a"."""
    known = modules(package)
    graph = {name: {t for t, _ in imports(name, path, known) if t in known} for name, path in known.items()}
    found, done = [], set()

    def visit(name, trail):
        if name in trail:
            found.append(" -> ".join([*trail[trail.index(name) :], name]))
        elif name not in done:
            for target in sorted(graph[name]):
                visit(target, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return found


def test_every_room_has_its_floor():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == ROOMS


def test_rooms_import_only_from_the_floors_below():
    assert forbidden_imports(PACKAGE) == []


def test_no_imports_form_a_cycle():
    assert cycles(PACKAGE) == []


def test_the_package_does_not_import_the_tools():
    known = modules(PACKAGE)
    everything = {target for name, path in known.items() for target, _ in imports(name, path, known)}
    assert {"torch", "qathelpers.common"} & everything, "the imports were not read"
    assert not {target for target in everything if target.split(".")[0] == "tools"}


def test_every_room_is_installed_and_the_tools_are_not():
    if sys.version_info < (3, 11):
        pytest.skip("needs tomllib")
    import tomllib

    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {module_name(path, ROOT) for path in PACKAGE.rglob("__init__.py")}
    assert set(setuptools["packages"]) == {"qathelpers.recorded", *folders}


@pytest.mark.parametrize(
    ("path", "source", "sentence"),
    [
        ("data/batches.py", "from ..training import fit", "data must not import qathelpers.training"),
        ("data/batches.py", "def f():\n    from ..nets.x import y", "data must not import qathelpers.nets.x"),
        ("nets/x.py", "import qathelpers.data.batches", "nets must not import qathelpers.data.batches"),
        ("nets/x.py", "from qathelpers import data", "nets must not import qathelpers.data"),
        ("nets/__init__.py", "from .. import load", "nets must not import qathelpers"),
        ("deploy/x.py", "from ..widgets import w", "deploy must not import qathelpers.widgets"),
        ("exercises/x.py", "from ..widgets import x", "exercises must not import qathelpers.widgets"),
        ("cellar/x.py", "", None),
        ("training/x.py", "from ..cellar import x", "training must not import qathelpers.cellar"),
        ("training/x.py", "from ..nets import x\nfrom ..common import y\nimport torch.nn", None),
    ],
)
def test_forbidden_imports_are_found(tmp_path, path, source, sentence):
    package = tmp_path / "qathelpers"
    for file in ("__init__.py", "data/__init__.py", "nets/__init__.py", "nets/x.py", "widgets/__init__.py", path):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).touch()
    (package / path).write_text(source, encoding="utf-8")
    found = forbidden_imports(package)
    assert len(found) == (sentence is not None)
    assert all(line.startswith(f"qathelpers/{path}:") and line.endswith(sentence) for line in found)


def test_cycles_are_found(tmp_path):
    package = tmp_path / "qathelpers"
    (package / "nets").mkdir(parents=True)
    sources = {"a": "from . import b", "b": "def f():\n    from .c import x", "c": "from ..nets.a import y", "d": ""}
    for name, source in {**sources, "__init__": "from . import a, d"}.items():
        (package / "nets" / f"{name}.py").write_text(source, encoding="utf-8")
    assert cycles(package) == ["qathelpers.nets.a -> qathelpers.nets.b -> qathelpers.nets.c -> qathelpers.nets.a"]
