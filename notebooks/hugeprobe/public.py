"""What of a host's own words may be published: words that are known, and nothing else.

Most facts of a host are numbers or one of a few settings. A few are text that somebody wrote: who
builds a kernel may put a name into its release (``6.12.0-alice@build``), who runs a virtual machine
may name its processor. Such text is kept up to its first unknown word; the rest is withheld, and
said to be. A word that is missing here is a pity and easily added; a name that gets out is not
taken back.

Each function returns what it is given if all of it is known, so ``f(f(text)) == f(text)``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

WITHHELD: Final = "withheld"
"""Stands for text of which nothing is known."""
_REST: Final = " (rest withheld)"
UNKNOWN_REASON: Final = "its reason was given in words that are withheld"
"""Stands for a reason that no probe of this package gives."""

_FLAVOURS: Final = """
    amd64 arm64 armmp aarch64 x86_64 i686 ppc64le s390x riscv64 loongarch64 noarch
    generic lowlatency default unsigned virtual standard cloud server desktop debug
    rt preempt hardened fips lts zen hwe oem raspi rpi rpt v8 16k 64k tegra bpo
    aws azure gcp gke gkeop oracle ibm kvm microsoft WSL2 linuxkit orbstack
    pve cos coreos flatcar talos liquorix uek
"""
_TAGS: Final = "rc bpo deb el fc amzn azl cm arch zen rt rpt xanmod mga"
_NUMBERS: Final = r"(?<=[-+~])\d{1,6}(?:rc\d{1,2})?(?:\.\d{1,6}){0,2}(?!\.\d)"
"""Up to three in a row: an address has more."""
_WORDS: Final = "|".join(
    (
        _NUMBERS,
        rf"(?:{'|'.join(_TAGS.split())})\d{{1,4}}(?:[_u]\d{{1,2}}|uek)?",
        *_FLAVOURS.split(),
    )
)
_RELEASE: Final = re.compile(
    rf"\d{{1,2}}(?:\.\d{{1,5}}){{1,3}}(?![\w.])(?:[-+.~](?:{_WORDS})(?![^-+.~]))*\+?"
)
"""``uname -r``: the version, then flavours, builds and tags of distributions."""

_CPU_WORDS: Final = r"""
    Intel(?:\(R\))? AMD Xeon(?:\(R\))? Core(?:\(TM\)2?)? Atom(?:\(TM\))? Celeron(?:\(R\))?
    Pentium(?:\(R\))? Phi(?:\(TM\))? Ultra Gold Silver Bronze Platinum Max Gen CPU EPYC Ryzen
    Threadripper Opteron Athlon PRO AI HX Processor APU with w/ Radeon Vega Graphics
    (?:Dual|Quad|Six|Eight)-Core QEMU Virtual version Common KVM Genuine Hygon Ampere Altra
    VirtualApple no TSX,? IBRS,?\)? IBPB\)?
    \(?(?:Westmere|Nehalem|SandyBridge|IvyBridge|Haswell|Broadwell|Skylake|Cascadelake),?\)?
    \(?(?:Cooperlake|Icelake|SapphireRapids|EmeraldRapids|GraniteRapids|SierraForest),?\)?
    EPYC-(?:Rome|Milan|Genoa|Turin) \d{1,2}(?:th|st|[nr]d) \d{1,3}-Cores? v\d{1,2} \d\.\d{1,2}\+?
    \d\.\d{1,2}GHz @
"""
_CPU_CODE: Final = r"(?:[A-Za-z]{1,2}\d?-)?[A-Z]{0,2}\d{1,5}[A-Z]{0,3}\d{0,2}[A-Z]?(?:-[A-Z])?"
_CPU: Final = re.compile(
    r"Arm, implementer 0x[0-9a-f]{2}, part 0x[0-9a-f]{3}(?!.)"
    rf"|(?:(?:^| )(?:(?i:{'|'.join(_CPU_WORDS.split())})|{_CPU_CODE})(?![^ ]))+"
)
"""``model name`` of ``/proc/cpuinfo``: makers, families, and codes with few letters."""
_TLB: Final = re.compile(r"\d{1,6} 4K pages(?!.)")
_VERSION: Final = re.compile(r"\d{1,4}(?:\.\d{1,4}){1,3}(?:(?:a|b|rc)\d{1,2}\+?)?(?!.)")

_ARCHITECTURES: Final = frozenset(
    ("aarch64", "armv7l", "i686", "loongarch64", "ppc64", "ppc64le", "riscv64", "s390x", "x86_64")
)

_SIZE: Final = r"[\d,.]+ [KMG]iB"
_ERRORS: Final = (
    *("Bad address", "Cannot allocate memory", "Device or resource busy", "Input/output error"),
    *("Function not implemented", "Invalid argument", "Operation not permitted"),
    *("Operation not supported", "Permission denied", "Resource temporarily unavailable"),
)
_ERROR: Final = rf"(?: \((?:(?:madvise|mmap): )?(?:{'|'.join(_ERRORS)})\))?"
_IN_BRACKETS: Final = re.compile(r" \([^()]*\)$")
_REASON: Final = re.compile(
    "|".join(
        (
            rf"it would touch {_SIZE}, and of the {_SIZE} that this process may use an experiment "
            r"takes at most half",
            rf"the kernel refused (?:the mappings|the advice|MADV_[A-Z]+){_ERROR}",
            r"another thread of this process mapped memory between the mappings",
            r"khugepaged made huge pages of base pages meanwhile",
            rf"the kernel had no free huge pages for {_SIZE} of it",
            r"THP is not built into this kernel, so every page is a base page",
            r"THP is forbidden to this process \(PR_SET_THP_DISABLE\), so every page is a base "
            r"page",
            r"THP is `(?:always|madvise|never|None)` on this host, so every page is a base page",
            r"the PMD size is switched off on this host, so no page is PMD-mapped",
            rf"this host also answers faults with pages of {_SIZE}(?:, {_SIZE})*, so there are "
            r"fewer faults",
            r"the package (?:openvino|onnx) is not installed; python -m pip install (?:openvino"
            r"|onnx) adds it",
            r"bert-tiny may need \d+ MiB and this process may use \d+ MiB",
            r"this system does not show the memory map of a process to its parent",
            r"it was not asked for",
            UNKNOWN_REASON,
        )
    )
)
"""What the probes say that a host record is made of, as their modules word it."""


def _kept(known: re.Pattern[str], text: str) -> str:
    """Return ``text`` up to its first unknown word, and say that more was there, if so."""
    found = known.match(text)
    if not found or not found[0]:
        return WITHHELD
    return text if found[0] == text else found[0] + _REST


def kernel_release(text: str) -> str:
    """Return a kernel's release without what its builder added.

    >>> kernel_release("6.8.0-45-generic"), kernel_release("6.12.0-alice@build")
    ('6.8.0-45-generic', '6.12.0 (rest withheld)')
    """
    return _kept(_RELEASE, text)


def tlb(text: str) -> str:
    """Return the size of a TLB as AMD processors tell it.

    >>> tlb("3584 4K pages")
    '3584 4K pages'
    """
    return _kept(_TLB, text)


def version(text: str) -> str:
    """Return the version of a library or of Python.

    >>> version("2.36"), version("2.36-alice")
    ('2.36', 'withheld')
    """
    return _kept(_VERSION, text)


def processor(text: str) -> str:
    """Return the name of a processor in the words of its maker.

    >>> processor("AMD EPYC 7763 64-Core Processor"), processor("Alice's laptop")
    ('AMD EPYC 7763 64-Core Processor', 'withheld')
    """
    return _kept(_CPU, " ".join(text.split()))


def word(text: str, known: Collection[str]) -> str:
    """Return ``text`` if it is one of the words that are ``known``."""
    return text if text in known else WITHHELD


def architecture(text: str) -> str:
    """Return the name of an architecture that 64-bit or 32-bit Linux has.

    >>> architecture("x86_64"), architecture("alice")
    ('x86_64', 'withheld')
    """
    return word(text, _ARCHITECTURES)


def reason(text: str) -> str:
    """Return why something could not be observed, if a probe of this package words it so.

    >>> reason("THP is `never` on this host, so every page is a base page")
    'THP is `never` on this host, so every page is a base page'
    >>> reason("no such file: /home/alice/model.onnx")
    'its reason was given in words that are withheld'
    >>> reason("the kernel refused the mappings (in a language of its own)")
    'the kernel refused the mappings'
    """
    for each in (text, _IN_BRACKETS.sub("", text)):
        if _REASON.fullmatch(each):
            return each
    return UNKNOWN_REASON
