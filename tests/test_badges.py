"""On copies of the course: the address is in pyproject.toml only, and everything else is written from it."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from qathelpers.common.errors import CourseError
from tools import badges, notebooks

if sys.version_info < (3, 11):
    pytest.skip("needs tomllib", allow_module_level=True)

ROOT = Path(__file__).parent.parent
GITHUB, ELSEWHERE = "https://github.com/an-owner/a.course", "https://git.example.org/course"
VERSION = "2.3.4"


def files(root):
    return [root / "README.md", *sorted((root / "notebooks").rglob("*.ipynb"))]


def texts(root):
    return [path.read_text(encoding="utf-8") for path in files(root)]


def cells(path):
    return nbformat.read(path, as_version=4).cells


@pytest.fixture
def course(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.fixture
def at(course):
    """Return a function that gives the course another address and writes it everywhere."""

    def write(address, update=True):
        urls = f'\n[project.urls]\nRepository = "{address}"\n' if address is not None else ""
        (course / "pyproject.toml").write_text(
            f'[project]\nname = "course"\nversion = "{VERSION}"\n{urls}', encoding="utf-8"
        )
        if update:
            badges.update(course)
        return course

    return write


def test_the_course_agrees_with_its_pyproject(course):
    assert badges.update(course) == []


def test_every_notebook_gets_badge_and_address_and_the_readme_its_badges(at):
    course = at(GITHUB)
    for path in files(course)[1:]:
        name = path.relative_to(course).as_posix()
        opening, setup = (cell.source for cell in cells(path)[:2])
        assert opening.split("\n\n")[0].startswith(f"# {path.name[:2]} ")
        assert opening.split("\n\n")[1] == badges.badge(GITHUB, VERSION, name)
        assert opening.split("\n\n")[2] == "After this notebook you can"
        assert f'ADDRESS = "{GITHUB}"' in setup
        count = (
            (course / "README.md")
            .read_text(encoding="utf-8")
            .count(f"]({name}) {badges.badge(GITHUB, VERSION, name)} |")
        )
        assert count == ("solutions" not in name)


def test_a_badge_opens_the_notebook_of_the_version_that_its_setup_cell_installs():
    link = "https://colab.research.google.com/github/an-owner/a.course/blob/v2.3.4/notebooks/00_start_here.ipynb"
    assert badges.badge(GITHUB, VERSION, "notebooks/00_start_here.ipynb").endswith(f"]({link})")


def test_the_setup_cell_names_the_wheel_and_the_tag_of_its_version(at):
    for path in files(at(GITHUB))[1:]:
        setup = cells(path)[1].source
        assert 'WHEEL = "qathelpers-2.3.4-py3-none-any.whl"' in setup and "git+{ADDRESS}@v2.3.4" in setup


def test_a_notebook_without_the_setup_cell_is_named(at, course):
    path = course / "notebooks" / "04_ternary_net.ipynb"
    notebook = nbformat.read(path, as_version=4)
    del notebook.cells[1]
    nbformat.write(notebook, path)
    with pytest.raises(CourseError, match=r"notebooks/04_ternary_net\.ipynb"):
        at(GITHUB)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/an-owner/a.course.git", GITHUB),
        ("https://user:secret@github.com/an-owner/a.course", GITHUB),
        ("https://secret@github.com/an-owner/a.course.git/", GITHUB),
        ("git@github.com:an-owner/a.course.git", GITHUB),
        ("ssh://git@github.com/an-owner/a.course.git", GITHUB),
        ("/somewhere/course", ""),
        ("file:///somewhere/course", ""),
        (None, ""),
    ],
)
def test_without_an_address_that_of_the_remote_is_taken(at, remote, address):
    course = at(None, update=False)
    subprocess.run(["git", "init", "--quiet", course], check=True)
    if remote:
        subprocess.run(["git", "-C", course, "remote", "add", "origin", remote], check=True)
    assert badges.address(course) == address
    assert badges.address(at(ELSEWHERE, update=False)) == ELSEWHERE


def test_solutions_made_anew_keep_their_badge(at):
    for path in sorted((at(GITHUB) / "notebooks").glob("*.ipynb")):
        _, solved = notebooks.split(notebooks.answered(nbformat.read(path, as_version=4)))
        assert solved.cells[0].source == cells(path.parent / "solutions" / path.name)[0].source


def test_writing_twice_changes_nothing_and_removing_the_address_restores_all(at):
    before = texts(at(None))
    after = texts(at(GITHUB))
    assert after != before and texts(at(GITHUB)) == after
    assert texts(at(f"{GITHUB}.git/"))[1:] == after[1:]
    assert texts(at(None)) == before


def test_an_address_outside_github_has_no_badge(at):
    course = at(ELSEWHERE)
    for path in files(course)[1:]:
        assert badges.IMAGE not in path.read_text(encoding="utf-8") and ELSEWHERE in cells(path)[1].source
    assert badges.IMAGE not in (course / "README.md").read_text(encoding="utf-8")


def test_only_the_first_two_cells_change(at):
    before, after = ({path: cells(path) for path in files(at(address))[1:]} for address in (None, GITHUB))
    for path, old in before.items():
        for number, (one, other) in enumerate(zip(old, after[path], strict=True)):
            if number < 2:
                one.source = other.source
            assert one == other


@pytest.mark.parametrize("address", ["github.com/owner/repo", "https://github.com/o/r; rm x", "OWNER"])
def test_what_is_not_a_url_is_not_written(at, address):
    with pytest.raises(CourseError, match="is not a URL"):
        at(address)


def test_the_command_names_what_it_wrote(at):
    arguments = ["--root", str(at(GITHUB, update=False))]
    assert "notebooks/solutions/08_your_own_net.ipynb" in CliRunner().invoke(badges.main, arguments).output
    assert CliRunner().invoke(badges.main, arguments).output == "everything is up to date\n"


def test_the_command_shows_a_wrong_address_without_a_traceback(at):
    result = CliRunner().invoke(badges.main, ["--root", str(at("OWNER", update=False))])
    assert result.exit_code == 1 and "'OWNER', is not a URL" in result.output and "Traceback" not in result.output
