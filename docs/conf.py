"""The site of `make docs`: the pages of this folder, and references that are made from the code."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import references  # noqa: E402
from docutils import nodes  # noqa: E402
from docutils.utils.math.latex2mathml import tex2mathml  # noqa: E402

from ntksim import __version__  # noqa: E402

project, author, release = "ntksim", "the ntksim developers", __version__
copyright = author
html_title = f"ntksim {release}"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_math_renderer = "mathml"  # formulas that browsers draw without scripts, so that the site is read offline
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

# Pages are read on GitHub too: anchors are made as GitHub makes them, and formulas are written as GitHub wants them.
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]

# Pages with {code-cell} blocks run when the site is made; an error in one is an error of the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

# A name in single backticks is code in docstrings, as it is in Markdown.
default_role = "code"
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_custom_sections = [("Errors", "notes_style")]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "__new__"}


def _as_sphinx_reads_it(app, document, source):
    """Turn what only a repository's pages may say into what Sphinx reads: formulas in $`x`$, links to files outside docs."""
    source[0] = re.sub(r"\$`([^`]*)`\$", r"$\1$", source[0])
    if "/" not in document:
        source[0] = re.sub(r"\[([^\]]+)\]\(\.\./([\w./-]+)(?:#[\w-]+)?\)", r"\1 (`\2` in the repository)", source[0])


def _as_napoleon_reads_it(app, what, name, thing, options, lines):
    """Docstrings say ``name : meaning`` where numpydoc has ``name : type``, and prose below ``Raises`` and behind parameters."""
    told, section, behind_blank = [], "", False
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if following.startswith("---"):
            section = line.strip()
            told.append("Errors" if section == "Raises" else line)
        elif section == "Parameters" and line and not line.startswith((" ", "---")):
            names, colon, meaning = line.partition(" : ")
            if not colon and behind_blank:
                section = "Notes"
                told += ["Notes", "-----", line]
            else:
                told += [names, f"    {meaning}"]
        else:
            told.append(line)
        behind_blank = not line.strip()
    lines[:] = told


def _mathml(start, end, *, as_block):
    """How a formula is written into a page. TeX that docutils does not know is an error of the build."""

    def visit(writer, node):
        writer.body.append(f"{start}{tex2mathml(node.astext(), as_block=as_block)}{end}")
        raise nodes.SkipNode

    return visit, None


def setup(app):
    """Called by Sphinx."""
    wide = '<div class="math" style="margin: 1rem 0; overflow-x: auto">', "</div>"
    app.add_html_math_renderer("mathml", _mathml("", "", as_block=False), _mathml(*wide, as_block=True))
    references.write(HERE / "reference")
    app.connect("source-read", _as_sphinx_reads_it)
    app.connect("autodoc-process-docstring", _as_napoleon_reads_it, priority=400)  # napoleon's is 500
