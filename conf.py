"""Settings of the guide. Behaviour lives in docs/_ext."""

import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).parent
sys.path[:0] = [str(ROOT / "docs/_ext"), str(ROOT / "notebooks")]

project = "Huge pages for inference"
html_title = "Huge pages for inference"
author = "The OpenVINO huge pages guide"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
language = "en"

root_doc = "docs/index"
include_patterns = ["docs/**", "notebooks/*.ipynb"]
exclude_patterns = ["_build", "**/_*", "**/.*", "**/jupyter_execute"]

extensions = [
    "myst_nb",  # brings myst_parser, which must not be listed beside it
    "nb_embed",
    "notebook_pages",
    "typer_reference",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]

# Strictness. The guide must build without a network, so there are no inventories of other
# projects: a name outside the package cannot be resolved, a name inside it must be.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!hugeprobe).*")]
linkcheck_timeout = 30
linkcheck_retries = 2
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*/blob/.*"]  # drawn by scripts

# Notebooks run at every build, because what they measure changes with the host, not with them.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 180  # seconds a cell
nb_execution_show_tb = True
nb_output_stderr = "warn"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables, and links to the glossary
nb_kernel_rgx_aliases = {".*": "python3"}
nb_embed_helpers = ["notebooks/hugeprobe/**/*.py", "notebooks/records/**/*.json"]

# Text. No mathematics: its script would come from another host.
myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
numfig = True
numfig_format = {"figure": "Figure %s", "table": "Table %s"}

# The API page.
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # a folder of the building host is no default to print
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"  # the parameters are listed below, each with its meaning
autodoc_default_options = {"exclude-members": "__init__, __new__"}
toc_object_entries = False
napoleon_google_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True

# Pages.
html_theme = "pydata_sphinx_theme"
html_static_path = ["docs/_static"]
html_css_files = ["guide.css"]
html_logo = (
    "docs/_static/logo.svg"  # not the theme's image_light: it spoils a failed build's folder
)
html_favicon = "docs/_static/favicon.svg"
templates_path = ["docs/_templates"]
html_additional_pages = {"index": "redirect.html"}  # the root leads to the guide
html_sidebars = {"**": ["guide-nav"]}
html_sourcelink_suffix = ""  # a notebook is offered as .ipynb, not as .ipynb.txt
html_copy_source = True
html_use_index = html_domain_indices = False  # search finds more
html_show_sphinx = False
html_theme_options = {
    "logo": {"text": project, "alt_text": ""},
    "navbar_center": [],
    "navbar_end": ["theme-switcher"],
    "primary_sidebar_end": [],
    "article_header_start": [],
    "article_header_end": ["notebook-download"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
    "show_toc_level": 2,
    "search_bar_text": "Search the guide",
    "search_as_you_type": True,
}
copybutton_exclude = ".linenos, .gp, .go"

latex_documents = [(root_doc, "huge-pages.tex", project, author, "howto")]
