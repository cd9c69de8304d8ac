"""A finished figure, and how each comes about: one style, one width, themed inline SVG."""

from __future__ import annotations

import hashlib
import io
import re
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from matplotlib import rc_context
from matplotlib.figure import Figure

from hugeprobe.drawing.palette import GAP, INK, THEMED

if TYPE_CHECKING:
    from collections.abc import Iterator

_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GAP,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "hatch.color": GAP,
    "svg.fonttype": "none",
    "svg.hashsalt": "hugeprobe",
    "figure.constrained_layout.use": True,
    "savefig.transparent": True,
}
_WIDTH: Final = 5.2
"""Inches of every figure: narrow enough for its type to be read on a telephone."""
_SVG: Final = "http://www.w3.org/2000/svg"
_XLINK: Final = "http://www.w3.org/1999/xlink"


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished figure.

    Parameters
    ----------
    svg
        Inline SVG, themed by the page that it is on.
    png
        The same for builders and viewers that have no SVG.
    text
        What it shows, as text.
    """

    svg: str
    png: bytes
    text: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, str | bytes]:
        return {"text/html": self.svg, "image/png": self.png, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


@contextmanager
def styled(height: float) -> Iterator[Figure]:
    """Give a figure of so many inches to draw and to finish in the style of all."""
    with rc_context(_STYLE):
        yield Figure(figsize=(_WIDTH, height))


def finish(figure: Figure, title: str, text: str) -> Picture:
    """Render ``figure``; ``title`` is its accessible name where no caption gives one."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=150, transparent=False, metadata={"Software": None})
    return Picture(_inline(svg.getvalue().decode(), title), png.getvalue(), text)


def _inline(svg: str, title: str) -> str:
    """Return Matplotlib's SVG document as an element for a page.

    Identifiers are kept only where something refers to them, and made unique to the picture: two
    pictures on one page must not share any.
    """
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(svg)
    for child in list(root):
        if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}title"):
            root.remove(child)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.attrib |= {"class": "hp-figure", "role": "img", "aria-label": title}
    referred = set(re.findall(r"#([\w-]+)", svg))
    for element in root.iter():
        if element.attrib.get("id") not in referred:
            element.attrib.pop("id", None)
    text = ET.tostring(root, encoding="unicode")
    salt = hashlib.sha256(f"{title}{text}".encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>hp{salt}-", text)
    for colour, themed in THEMED.items():
        text = re.sub(colour, themed, text, flags=re.IGNORECASE)
    # The page's own type, at the size that Matplotlib measured with.
    text = re.sub(r"font: ((?:\w+ )*)([\d.]+px) [^;\"]*", r"font: \1\2 sans-serif", text)
    return re.sub(r">\s+<", "><", text)
