"""Sphinx's settings. It reads what stage.py has laid out, in a folder that this file has been copied to."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(os.environ["FIBERBACK_CHECKOUT"])
sys.path.insert(0, str(Path(__file__).parent))

project = "fiberback"
author = "the fiberback authors"
project_copyright = "the fiberback authors"
version = release = tomllib.loads((CHECKOUT / "Cargo.toml").read_text(encoding="utf-8"))[
    "workspace"
]["package"]["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sources",
]
nitpicky = False
source_suffix = {".md": "markdown"}
exclude_patterns: list[str] = []

# --- Markdown --------------------------------------------------------------------------------------

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_url_schemes = {"http": None, "https": None, "mailto": None, "repo": None, "site": None}
# Tables of figures begin with an empty head; pages from elsewhere have headings of their own depth.
suppress_warnings = ["myst.header"]

# --- Python ----------------------------------------------------------------------------------------

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
default_role = "code"
python_use_unqualified_type_names = True
viewcode_line_numbers = True

# --- HTML ------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = f"fiberback {version}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_last_updated_fmt = None
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {
        "font-stack": "system-ui, sans-serif",
        "font-stack--monospace": "ui-monospace, monospace",
    },
    "dark_css_variables": {
        "font-stack": "system-ui, sans-serif",
        "font-stack--monospace": "ui-monospace, monospace",
    },
}
pygments_style = "friendly"
pygments_dark_style = "monokai"
