"""Show the outputs of a notebook cell on another page.

A cell that carries ``"metadata": {"label": "coverage"}`` can be shown by any page::

    ```{nb-embed} ../notebooks/alignment.ipynb#coverage
    :name: fig-coverage
    :alt: Two bars; the upper one is filled to its end, the lower one to a third.
    How much of the memory is huge.
    ```

and a cell whose output is one line can be part of a sentence::

    Here it is {nb-value}`../notebooks/alignment.ipynb#share` of the memory.

Both leave a placeholder when the page is read. It is filled when the page is written, from the
notebook's stored document, where every output still has all of its MIME types: MyST-NB picks the
one that suits the builder only afterwards.
"""

from __future__ import annotations

import ast
from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import pending_xref
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docutils.nodes import Node
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment
    from sphinx.util.typing import ExtensionMetadata, OptionSpec

ALTS = "nb_embed_alts"
"""Key, in the metadata of a page, of the alternative texts that it gives to cells."""

NARROW = 40
"""Columns of text that fit on a small telephone."""

logger = logging.getLogger(__name__)


class PendingCell(nodes.General, nodes.Element):
    """Stands for the outputs of a cell: ``doc``, ``label``, ``alt`` and ``name`` of the output."""


class PendingValue(nodes.Inline, nodes.TextElement):
    """Stands for the one line of text that a cell put out: ``doc`` and ``label``."""


class EmbeddedTable(nodes.figure):
    """A figure that counts, and is referred to, as a table."""


def visit_figure(writer: Any, node: EmbeddedTable) -> None:
    """Begin a table in HTML or text, which have no numbering of their own."""
    writer.visit_figure(node)


def depart_figure(writer: Any, node: EmbeddedTable) -> None:
    """End a table in HTML or text."""
    writer.depart_figure(node)


def visit_float(writer: Any, _node: EmbeddedTable) -> None:
    """Begin a table in LaTeX, which numbers it by its environment."""
    writer.body.append("\n\\begin{table}[htbp]\n\\centering\n\\capstart\n")


def depart_float(writer: Any, _node: EmbeddedTable) -> None:
    """End a table in LaTeX."""
    writer.body.append("\n\\end{table}\n")


def warn(subtype: str, message: str, location: Node | str | tuple[str, int]) -> None:
    """Report what is wrong with an embedded cell, as a warning of type ``nb_embed``."""
    logger.warning(message, type="nb_embed", subtype=subtype, location=location)


def find_cell(env: BuildEnvironment, target: str, line: int) -> dict[str, str]:
    """Split ``path#label`` and make the page depend on the notebook.

    Returns
    -------
    dict
        ``doc`` and ``label``; empty, after a warning, if there is no such notebook on the site.
    """
    path, _, label = target.partition("#")
    relative, absolute = env.relfn2path(path)
    env.note_dependency(relative)
    doc = env.path2doc(absolute)
    if doc in env.found_docs and label:
        return {"doc": doc, "label": label}
    message = f"{target!r} names no notebook of this site and label; write path/name.ipynb#label"
    warn("missing", message, (env.docname, line))
    return {}


class NbEmbed(SphinxDirective):
    """``nb-embed``: the outputs of a labelled cell; the content is the caption."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar[OptionSpec] = {
        "alt": directives.unchanged_required,
        "class": directives.class_option,
        "kind": lambda value: directives.choice(value, ("figure", "table")),
        "name": directives.unchanged_required,
    }

    def run(self) -> list[Node]:
        """Put a placeholder into a box or, where there is a caption, into a numbered figure."""
        cell = find_cell(self.env, self.arguments[0], self.lineno)
        if not cell:
            return []
        if alt := self.options.get("alt", ""):
            alts = self.env.metadata[self.env.docname].setdefault(ALTS, {})
            alts[cell["doc"], cell["label"]] = alt
        pending = PendingCell(**cell, alt=alt)
        box: nodes.Element = nodes.container("", pending)
        if self.content:
            first, *rest = self.parse_content_to_nodes()
            caption = nodes.caption("", "", *first.children)
            box = EmbeddedTable() if self.options.get("kind") == "table" else nodes.figure()
            box += [pending, caption]
            if rest:
                box += nodes.legend("", *rest)
            self.set_source_info(caption)
        box["classes"] = ["nb-embed", *self.options.get("class", ())]
        self.set_source_info(box)
        self.set_source_info(pending)
        self.add_name(box)
        return [box]


class NbValue(SphinxRole):
    """``nb-value``: the one line of text that a labelled cell put out."""

    def run(self) -> tuple[list[Node], list[nodes.system_message]]:
        """Put a placeholder into the sentence."""
        cell = find_cell(self.env, self.text, self.lineno)
        if not cell:
            return [], []
        pending = PendingValue(self.rawtext, "", **cell)
        self.set_source_info(pending)
        return [pending], []


def labelled_cells(document: nodes.document) -> Iterable[tuple[str, nodes.container]]:
    """Find the code cells of a notebook that have a label."""
    for node in document.findall(nodes.container):
        if node.get("nb_element") == "cell_code" and (label := node["cell_metadata"].get("label")):
            yield label, node


def outputs_of(cell: nodes.container) -> nodes.container | None:
    """Return what holds the outputs of a cell, or None if it has none."""
    for child in cell.findall(nodes.container):
        if child.get("nb_element") == "cell_code_output":
            return child
    return None


def wrap(node: nodes.Element, **attributes: str) -> None:
    """Put an HTML element around a node; other formats see no difference."""
    start = " ".join(f'{key}="{escape(value)}"' for key, value in attributes.items())
    position = node.parent.index(node)
    node.parent.insert(position + 1, nodes.raw("", "</div>", format="html"))
    node.parent.insert(position, nodes.raw("", f"<div {start}>", format="html"))


def make_accessible(outputs: nodes.container, alt: str, name: str) -> None:
    """Give pictures their alternative text, and what is wide a box that the keyboard can scroll.

    With `alt`, images and HTML become one picture with this text, and a text that only repeats
    Python's default ``<Figure at 0x…>`` gives way to it. Without, tables and long lines get a
    scrolling box called `name`.
    """
    scroll = {"class": "nb-scroll", "role": "group", "tabindex": "0", "aria-label": name}
    for image in outputs.findall(nodes.image) if alt else ():
        image["alt"] = alt
    for html in list(outputs.findall(nodes.raw)):
        if html.get("format") == "html" and alt:
            wrap(html, **{"class": "nb-picture", "role": "img", "aria-label": alt})
        elif html.get("format") == "html" and "<table" in html.astext():
            wrap(html, **scroll)
    for text in list(outputs.findall(nodes.literal_block)):
        if alt and text.astext().startswith("<"):
            text.replace_self(nodes.paragraph("", alt))
        elif max(map(len, text.astext().splitlines()), default=0) > NARROW:
            wrap(text, **scroll)


def value_of(outputs: nodes.container) -> list[Node]:
    """Return the one line that a cell put out; an empty list if it is not one line."""
    for node in outputs.findall(nodes.container):
        if node.get("mime_type") == "text/markdown":
            only, *others = node.children
            return [] if others or not isinstance(only, nodes.paragraph) else only.children
    text = "".join(block.astext() for block in outputs.findall(nodes.literal_block)).strip()
    try:
        literal = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        literal = None
    text = literal if isinstance(literal, str) else text
    return [nodes.Text(text)] if text and "\n" not in text else []


class FillCells(SphinxPostTransform):
    """Fill the placeholders of a page, before MyST-NB (priority 4) picks a MIME type."""

    default_priority = 3

    def run(self, **_kwargs: object) -> None:
        """Fill the page; on a notebook's own page, use the alternative texts of other pages."""
        alts = {k: v for page in self.env.metadata.values() for k, v in page.get(ALTS, {}).items()}
        for label, cell in labelled_cells(self.document):
            if outputs := outputs_of(cell):
                make_accessible(outputs, alts.get((self.env.docname, label), ""), label)
        for box in list(self.document.findall(PendingCell)):
            if outputs := self.outputs_for(box):
                caption = box.next_node(nodes.caption, descend=False, siblings=True)
                make_accessible(outputs, box["alt"], caption.astext() if caption else box["label"])
            box.replace_self(outputs or [])
        for value in list(self.document.findall(PendingValue)):
            outputs = self.outputs_for(value)
            text = value_of(outputs) if outputs else []
            if outputs and not text:
                warn("value", f"the output of cell {value['label']!r} is not one line", value)
            value.replace_self(text)

    def outputs_for(self, pending: nodes.Element) -> nodes.container | None:
        """Copy the outputs that a placeholder stands for; None, after a warning, without them."""
        doc, label = pending["doc"], pending["label"]
        cells = dict(labelled_cells(self.env.get_doctree(doc)))
        if label not in cells:
            known = ", ".join(cells) or "none"
            warn("missing", f"no cell of {doc} has the label {label!r}; it has: {known}", pending)
            return None
        outputs = outputs_of(cells[label])
        if outputs is None:
            warn("empty", f"the cell {label!r} of {doc} has no output to show", pending)
            return None
        for reference in outputs.findall(pending_xref):
            reference["refdoc"] = self.env.docname
        return outputs.deepcopy()


def check_labels(app: Sphinx, document: nodes.document) -> None:
    """Warn of two cells with one label in a notebook."""
    for label, count in Counter(label for label, _ in labelled_cells(document)).items():
        if count > 1:
            doc = app.env.docname
            warn("duplicate", f"{count} cells of {doc} have the label {label!r}", doc)


def depend_on_helpers(app: Sphinx, _docname: str, _source: list[str]) -> None:
    """Rebuild a page when a module that notebooks import, or a record that they read, changes."""
    for pattern in app.config.nb_embed_helpers:
        for path in app.srcdir.glob(pattern):
            app.env.note_dependency(path)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive, the role and ``nb_embed_helpers``, globs below the source folder."""
    app.add_config_value("nb_embed_helpers", [], "env", frozenset({list}))
    app.add_node(PendingCell)
    app.add_node(PendingValue)
    figure, float_ = (visit_figure, depart_figure), (visit_float, depart_float)
    app.add_enumerable_node(EmbeddedTable, "table", None, html=figure, text=figure, latex=float_)
    app.add_directive("nb-embed", NbEmbed)
    app.add_role("nb-value", NbValue())
    app.add_post_transform(FillCells)
    app.connect("source-read", depend_on_helpers)
    app.connect("doctree-read", check_labels)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
