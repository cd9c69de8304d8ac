"""Settings of a small tree, like those of OpenVINO's documentation."""

project = "OpenVINO™"
extensions = [
    "sphinx_inline_tabs",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "myst_parser",
    "breathe",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
html_theme = "pydata_sphinx_theme"
html_copy_source = False
html_theme_options = {"navigation_depth": 8, "show_nav_level": 2, "show_prev_next": False}
html_context = {"default_mode": "light"}
