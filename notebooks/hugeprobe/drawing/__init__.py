"""Pictures and tables of the guide: one palette, one type, readable on light and dark pages.

Figures are drawn by Matplotlib and turned into inline SVG whose text stays text and whose colours
are CSS variables with a fallback, so one picture serves the light theme, the dark theme and a
notebook. Each also has a PNG (for builders that cannot show SVG) and its data as plain text.

===========  ===================================================
``palette``  the colours
``picture``  what a finished figure is, and how each comes about
``wording``  tables and sentences
``spaces``   address spaces as strips
``charts``   lines and marks
``stacks``   stacked bars
``ratios``   ratios with intervals
``shares``   tables of shares
``rows``     rows of cells
``flow``     questions, and where their answers lead
===========  ===================================================
"""

from hugeprobe.drawing.charts import Line, Panel, chart
from hugeprobe.drawing.flow import End, Step, flow
from hugeprobe.drawing.palette import ACCENT, BASE, GAP, HUGE, INK
from hugeprobe.drawing.picture import Picture
from hugeprobe.drawing.ratios import Mark, intervals
from hugeprobe.drawing.rows import cells
from hugeprobe.drawing.shares import Shares, share_tables
from hugeprobe.drawing.spaces import address_spaces
from hugeprobe.drawing.stacks import bars
from hugeprobe.drawing.wording import MarkdownTable, Sentence, markdown_table

__all__ = [
    "ACCENT",
    "BASE",
    "GAP",
    "HUGE",
    "INK",
    "End",
    "Line",
    "Mark",
    "MarkdownTable",
    "Panel",
    "Picture",
    "Sentence",
    "Shares",
    "Step",
    "address_spaces",
    "bars",
    "cells",
    "chart",
    "flow",
    "intervals",
    "markdown_table",
    "share_tables",
]
