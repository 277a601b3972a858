"""Sphinx's settings for the course's website; `tools/site.py` collects the pages."""

import inspect
import re
from importlib import metadata

from brevitas.inject import ExtendedInjector
from docutils import nodes
from latex2mathml.converter import convert

project = "Low-bit neural networks, hands on"
author = "the authors of this course"
copyright = "2026, the authors of this course"
release = metadata.version("qathelpers")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = project
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_static_path: list[str] = []

nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 4
autodoc_typehints = "none"  # the signatures have them already
autodoc_member_order = "bysource"
napoleon_google_docstring = True
# The titles of chapters have numbers, and the solutions repeat those of the exercises.
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]

STYLE = """
img.figure { max-width: 100%; background: white; }
table.dataframe { border: 0; border-collapse: collapse; }
table.dataframe th, table.dataframe td { border: 0; padding: 0.2em 0.8em; text-align: right; }
math[display=block] { overflow-x: auto; margin: 1em 0; }
@media print { .sidebar-drawer, .toc-drawer, .mobile-header, .related-pages { display: none !important; } }
"""


def visit_math(translator, node):
    """Write a formula as MathML, which browsers show without a script from elsewhere."""
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def visit_displayed_math(translator, node):
    """Write a formula that stands alone."""
    translator.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def add_style(app, page, template, context, doctree):
    """Put the few rules of the course's own style into the head of each page, and that there is no icon to ask for."""
    context["metatags"] = context.get("metatags", "") + f'<link rel="icon" href="data:,"><style>{STYLE}</style>'


def skip_others(app, what, name, member, skip, options):
    """Leave out classes and functions of other packages, also those that Matplotlib adds to its subclasses."""
    return skip or not (getattr(member, "__module__", None) or "qathelpers").startswith("qathelpers")


def from_markdown(app, what, name, member, options, lines):
    """Let Sphinx read the package's docstrings, whose code is in single backticks and whose stars are no emphasis."""
    for number, line in enumerate(lines):
        parts = re.split(r"(?<!`)(`[^`]+`)(?!`)", line)  # every second part is code
        parts[::2] = [part.replace("*", r"\*") for part in parts[::2]]
        parts[1::2] = [f"`{part}`" for part in parts[1::2]]
        lines[number] = "".join(parts)


def setup(app):
    """Register the renderer of formulas, the style and what the pages of the package need."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displayed_math, None))
    app.connect("html-page-context", add_style)
    app.connect("autodoc-skip-member", skip_others)
    app.connect("autodoc-process-docstring", from_markdown, priority=100)  # before napoleon reads its sections
    type.__setattr__(ExtendedInjector, "__signature__", inspect.Signature())  # it refuses to be asked for a signature
