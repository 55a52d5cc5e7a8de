"""How the site is built: `make docs`. What it makes of the pages is in tools/docs_site.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import torchxrayvision  # noqa: E402

project = "TorchXRayVision 2"
author = "TorchXRayVision 2 contributors"
project_copyright = "TorchXRayVision 2 contributors, Apache-2.0"
release = version = torchxrayvision.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "docs_site",
    "docs_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
nitpicky = True
highlight_language = "text"
suppress_warnings = ["config.cache"]  # a function in the configuration is not kept between builds

# ---- Python: Google docstrings, every name a link where it has a page.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"exclude-members": "__new__"}
python_use_unqualified_type_names = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
add_module_names = False
toc_object_entries = False

# Other projects' names become links where their inventories can be had: the published site asks for
# them, a build without a network does not.
if os.environ.get("XRV_DOCS_ONLINE"):
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "pandas": ("https://pandas.pydata.org/docs", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }
intersphinx_timeout = 10

# ---- Markdown and notebooks, which are run as the site is built.
myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 4
nb_execution_mode = os.environ.get("XRV_DOCS_NOTEBOOKS", "force")
nb_execution_timeout = 600  # seconds per cell, for busy machines; each notebook takes far less
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_render_markdown_format = "myst"

# ---- How it looks.
html_theme = "pydata_sphinx_theme"
html_title = f"TorchXRayVision {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {
    **{page: [] for page in ("index", "get-started", "commands", "project/changes")},
    "api/torchxrayvision.*": ["api-siblings.html"],
}
html_theme_options = {
    "logo": {"text": "TorchXRayVision 2"},
    "header_links_before_dropdown": 6,
    "navigation_depth": 2,
    "show_nav_level": 1,
    "show_toc_level": 2,
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "navbar_align": "left",
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# ---- Addresses that moved, and those of the documentation of 1.5.7.
xrv_redirects = {
    "models": "weights.html",
    "baseline_models": "api/torchxrayvision.baseline_models.html",
    "dataset_helpers": "api/torchxrayvision.datasets.html",
    "utilities": "api/torchxrayvision.utils.html",
    "faq": "migration.html",
    "changelog": "project/changes.html",
}
