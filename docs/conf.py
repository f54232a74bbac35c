"""The documentation site: `make docs`. Warnings are errors.

A new page docs/*.md is picked up by itself and stands under "Further pages" of the start page until it is
named in a table of contents.
"""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "src"))

from heartwire._version import __version__  # noqa: E402

project = "heartwire"
author = "heartwire contributors"
copyright = author
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "images"]
nitpicky = False

html_theme = "furo"
html_title = f"heartwire {release}"
html_static_path = ["_static"]
html_css_files = ["heartwire.css"]
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "misc.highlighting_failure"]  # JSON with an ellipsis in it
highlight_language = "none"
default_role = "code"  # docstrings are written in Markdown's spirit

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Source", "notes_style")]


TOCTREE = re.compile(r"^:{3,}\{toctree\}\n(.*?)^:{3,}$", re.DOTALL | re.MULTILINE)


def unlisted() -> str:
    """A table of contents of the pages in docs/ that no other one names."""
    named = {"index"}
    for page in HERE.rglob("*.md"):
        for toc in TOCTREE.findall(page.read_text(encoding="utf-8")):
            named |= {Path(word.strip("<>/")).name for word in toc.split()}
    found = [page.stem for page in sorted(HERE.glob("*.md")) if page.stem not in named]
    return "\n".join(["## Further pages\n", ":::{toctree}\n:maxdepth: 1", *found, ":::\n"]) if found else ""


def setup(app) -> None:
    def read(_app, docname, source) -> None:
        if docname == "index":
            source[0] += unlisted()

    def process_docstring(_app, what, _name, _object, _options, lines) -> None:
        if what in ("property", "attribute", "data") and lines:
            lines[0] = lines[0].replace(": ", " – ", 1)  # napoleon takes what stands before it for a type

    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", process_docstring, priority=100)
