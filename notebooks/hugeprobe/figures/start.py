"""What the first notebook shows beside the figures of other pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hugeprobe.check import Gives, gives
from hugeprobe.drawing import MarkdownTable, Sentence, markdown_table
from hugeprobe.errors import NotObservable
from hugeprobe.host import described

if TYPE_CHECKING:
    from hugeprobe.check import Got
    from hugeprobe.host import HostFacts

_SHORT: Final = ("Kernel", "THP mode", "Huge page sizes, advised memory", "Virtualisation", "glibc")

_NEXT: Final = {
    Gives.EVERYONE: (
        "`alignment.ipynb`, because here only sizes, addresses and the order of the first write "
        "decide what of a program is huge"
    ),
    Gives.WHO_ASKS: (
        "`openvino-memory.ipynb`, because here it matters whether a runtime asks; it shows "
        "what of a model is huge when none does"
    ),
    Gives.TOO_FEW: (
        "`how-huge-pages-reach-a-process.ipynb`, which shows what a process gets at a fault and "
        "what a collapse gives where faults do not"
    ),
    Gives.NOBODY: (
        "`how-huge-pages-reach-a-process.ipynb`, because a collapse can still give what faults "
        "do not"
    ),
}

_NEXT_WITHOUT_MEASURING: Final = (
    "`real-kernels.ipynb`, because it shows what was recorded elsewhere and measures nothing here"
)


def this_host(facts: HostFacts) -> MarkdownTable:
    """Return the few facts that decide most."""
    known = dict(described(facts))
    return markdown_table(
        ("setting", "this host"), [(name, known[name]) for name in _SHORT if name in known]
    )


def next_notebook(got: dict[str, Got] | NotObservable) -> Sentence:
    """Name the notebook that tells most about a host like this one."""
    which = _NEXT_WITHOUT_MEASURING if isinstance(got, NotObservable) else _NEXT[gives(got)]
    return Sentence(f"Open {which}.")
