"""What the page of a notebook has beyond MyST-NB: contents that link, and a copy with outputs.

* A notebook links to its headings as JupyterLab names them, ``#The-alignment-rule``; here the same
  links lead to the headings of the page.
* Each notebook's page offers the notebook as it was run at the build, outputs included, beside the
  one without outputs that Sphinx offers as the source of the page.
* ``notebook-needs`` lists the notebooks of the site with their run time at this build and with the
  packages that they install.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

import nbformat
from docutils import nodes
from docutils.transforms import Transform
from myst_nb.sphinx_ import NbMetadataCollector, SphinxEnvType  # type: ignore[import-untyped]
from myst_parser.slugs import github_slugify
from sphinx.addnodes import pending_xref
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docutils.nodes import Node
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment
    from sphinx.util.typing import ExtensionMetadata

EXECUTED: Final = "executed"
"""Folder of the copies with outputs, on the site and beside the doctrees."""

NEEDS: Final = "notebook_needs"
"""Key, in the metadata of a page, that says that the page lists the notebooks."""

LETTERS: Final = 32
"""Width of a column of the list where it is text."""

BEFORE_MYST: Final = 878
"""Priority of a transform that comes just before MyST resolves links within a page."""


def is_notebook(env: BuildEnvironment, docname: str) -> bool:
    """Say whether a document of the site is a notebook."""
    return docname in env.found_docs and str(env.doc2path(docname)).endswith(".ipynb")


def notebooks(env: BuildEnvironment) -> list[str]:
    """Return the documents that are notebooks, in the order of the table of contents."""
    listed = env.toctree_includes.get(env.config.root_doc, [])
    return [docname for docname in listed if is_notebook(env, docname)]


class LinkHeadings(Transform):
    """Turns the names that JupyterLab gives to headings into those of MyST, in notebooks."""

    default_priority = BEFORE_MYST

    def apply(self, **_kwargs: object) -> None:
        """Rewrite the links within the page."""
        source = Path(self.document["source"] or "")
        for link in self.document.findall(nodes.reference) if source.suffix == ".ipynb" else ():
            if link.get("id_link"):
                link["refuri"] = "#" + github_slugify(unquote(link["refuri"][1:]))


def as_published(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave out of an executed notebook what its readers cannot use.

    A picture stays as PNG alone, because viewers show no HTML or SVG of a notebook that they have
    not run themselves.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data.pop("text/html", None)
    return notebook


def keep_executed(app: Sphinx, _document: nodes.document) -> None:
    """Keep the notebook that was just run with its doctree, so that every builder has it."""
    docname = app.env.docname
    if is_notebook(app.env, docname):
        output_folder = Path(cast("SphinxEnvType", app.env).mystnb_config.output_folder)
        notebook = nbformat.read(output_folder / f"{docname}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
        kept = Path(app.doctreedir, EXECUTED, f"{docname}.ipynb")
        kept.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(as_published(notebook), kept)  # type: ignore[no-untyped-call]


def offer_executed(
    app: Sphinx, pagename: str, _template: str, context: dict[str, Any], _document: object
) -> None:
    """Tell the template of a notebook's page where the copy with outputs is."""
    if is_notebook(app.env, pagename):
        context["executed_notebook"] = f"{EXECUTED}/{pagename}.ipynb"


def publish_executed(app: Sphinx, exception: Exception | None) -> None:
    """Put the copies with outputs on the site."""
    if exception is None and app.builder.format == "html":
        for docname in notebooks(app.env):
            copy = Path(app.outdir, EXECUTED, f"{docname}.ipynb")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(app.doctreedir, EXECUTED, f"{docname}.ipynb"), copy)


class PendingNeeds(nodes.General, nodes.Element):
    """Stands for the list of notebooks until all of them have been run."""


class NotebookNeeds(SphinxDirective):
    """``notebook-needs``: the notebooks, how long each ran here, and what each installs."""

    def run(self) -> list[Node]:
        """Put a placeholder on the page."""
        self.env.metadata[self.env.docname][NEEDS] = True
        return [PendingNeeds()]


def installed_by(path: Path) -> list[str]:
    """Return the names of the packages that a notebook installs."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    commands = [cell.source for cell in notebook.cells if cell.source.startswith("%pip install")]
    return [name for command in commands for name in re.findall(r'"([\w-]+)', command)]


def table(head: Iterable[str], rows: Iterable[Iterable[nodes.Element]]) -> nodes.table:
    """Return a table; each entry of `rows` is the content of a cell."""
    columns = list(head)
    group = nodes.tgroup("", cols=len(columns))
    group += [nodes.colspec(colwidth=LETTERS) for _ in columns]
    words = [[nodes.paragraph(text=word) for word in columns]]
    for part, contents in ((nodes.thead(), words), (nodes.tbody(), rows)):
        part.extend(
            nodes.row("", *(nodes.entry("", content) for content in row)) for row in contents
        )
        group.append(part)
    return nodes.table("", group, classes=["colwidths-auto", "long"])


class FillNeeds(SphinxPostTransform):
    """Replaces the placeholder by the table, before links between pages are resolved."""

    default_priority = 8

    def run(self, **_kwargs: object) -> None:
        """Fill the page."""
        for pending in list(self.document.findall(PendingNeeds)):
            rows = [self.row(docname) for docname in notebooks(self.env)]
            pending.replace_self(table(("notebook", "ran here for", "installs"), rows))

    def row(self, docname: str) -> list[nodes.Element]:
        """Return the cells of a notebook's row."""
        name = Path(docname).name
        link = pending_xref(
            "",
            nodes.inline("", name),
            refdoc=self.env.docname,
            refdomain="std",
            reftype="doc",
            reftarget=f"/{docname}",
            refexplicit=True,
        )
        run = NbMetadataCollector.get_exec_data(cast("SphinxEnvType", self.env), docname)
        seconds = f"{max(1, round(run['runtime']))} s" if run and run["runtime"] else "-"
        packages = installed_by(Path(self.env.doc2path(docname)))
        return [
            nodes.paragraph("", "", link),
            nodes.paragraph(text=seconds),
            nodes.paragraph(text=", ".join(packages)),
        ]


def rebuild_lists(_app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Write the pages that list the notebooks anew when one of these has run."""
    if not NbMetadataCollector.new_exec_data(cast("SphinxEnvType", env)):
        return []
    return [docname for docname, metadata in env.metadata.items() if NEEDS in metadata]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the transforms, the directive and the events."""
    app.add_node(PendingNeeds)
    app.add_transform(LinkHeadings)
    app.add_directive("notebook-needs", NotebookNeeds)
    app.add_post_transform(FillNeeds)
    app.connect("doctree-read", keep_executed)
    app.connect("env-updated", rebuild_lists)
    app.connect("html-page-context", offer_executed)
    app.connect("build-finished", publish_executed)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
