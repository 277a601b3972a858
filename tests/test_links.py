"""Every link inside the course leads to a file, and to a heading of this file if it names one."""

import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\]|!\[[^\]]*\]\([^)]*\))*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
HTML = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)=\"([^\"]+)\"")
OUTSIDE = re.compile(r"^([a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)


def pages(root):
    """Return every page of the course: Markdown files and notebooks."""
    found = [*root.glob("*.md"), *(p for name in ("docs", "data", "notebooks") for p in (root / name).rglob("*.md"))]
    notebooks = (root / "notebooks").rglob("*.ipynb")
    return sorted(path for path in [*found, *notebooks] if ".ipynb_checkpoints" not in path.parts)


def text(path):
    """Return the Markdown of a page without its code blocks."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(source, as_version=4).cells
        source = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return FENCE.sub("", source)


def links(markdown):
    without_code = re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", lambda match: "x" * len(match[0]), markdown)
    return {link for kind in (LINK, IMAGE, REFERENCE, HTML) for link in kind.findall(without_code)}


def anchors(path):
    """Return the anchors of a page's headings: as on GitHub and, for a notebook, also as in JupyterLab."""
    found = set()
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text(path), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        plain = re.sub(r"[*`]", "", plain)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (numbered := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(numbered)
        if path.suffix == ".ipynb":
            found.add(plain.replace(" ", "-"))
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text(path)))


def broken(root, path):
    """Return a sentence for each link of a page that leads nowhere."""
    sentences = []
    for link in sorted(links(text(path))):
        if OUTSIDE.match(link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.is_relative_to(root.resolve()) or not target.exists():
            sentences.append(f"{path.relative_to(root).as_posix()}: {link} does not exist")
        elif anchor and anchor not in anchors(target):
            sentences.append(f"{path.relative_to(root).as_posix()}: {link} has no such heading")
    return sentences


@pytest.mark.parametrize("path", pages(ROOT), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    assert broken(ROOT, path) == []


def test_the_pages_are_found_and_have_links():
    names = {path.relative_to(ROOT).as_posix() for path in pages(ROOT)}
    assert {"README.md", "CONTRIBUTING.md", "docs/results.md", "notebooks/INSTRUCTORS.md"} <= names
    assert {"notebooks/00_start_here.ipynb", "notebooks/solutions/09_integers_only.ipynb"} <= names
    linked = {Path(link).name for link in links(text(ROOT / "README.md"))}
    assert {"LICENSE", "CITATION.cff", "install.md", "accuracy-against-bytes.svg", "solutions"} <= linked


@pytest.mark.parametrize(
    ("markdown", "count"),
    [
        ("[a](b.md)", 0),
        ("[a](missing.md)", 1),
        ("[a](b.md#two-words-and-code)", 0),
        ("[a](b.md#again-1) and [a](#here)", 0),
        ("[a](b.md#nothing)", 1),
        ("![](missing.png)", 1),
        ("[![badge](missing.svg)](b.md)", 1),
        ("[![badge](https://a.b/c.svg)](missing.md)", 1),
        ('<img src="missing.png">', 1),
        ("[text]\n\n[text]: missing.md", 1),
        ("[a](../outside.md)", 1),
        ("`[a](missing.md)`", 0),
        ("```\n[a](missing.md)\n```", 0),
        ("[a](https://example.org/missing) [b](mailto:a@b.c)", 0),
        ('[a](b.md "a title") [f](folder) [u](with%20blank.md)', 0),
    ],
)
def test_broken_links_are_found(tmp_path, markdown, count):
    root = tmp_path / "course"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "outside.md").touch()
    (root / "with blank.md").touch()
    (root / "b.md").write_text("# Two words, and `code`\n# Again\n# Again\n", encoding="utf-8")
    (root / "a.md").write_text(f"# Here\n\n{markdown}\n", encoding="utf-8")
    assert len(broken(root, root / "a.md")) == count
