"""What of a host's own words is published: known words, and nothing else."""

from __future__ import annotations

import doctest
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hugeprobe import areas, public
from hugeprobe.errors import NotObservable
from hugeprobe.host import Cpu, described, host_facts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "xqzsecretzqx"
FUNCTIONS = (
    public.kernel_release,
    public.processor,
    public.tlb,
    public.version,
    public.architecture,
    public.reason,
)
RELEASES = [
    "6.1.0-50-amd64",
    "6.12.117+deb13-amd64",
    "6.12.12+bpo-amd64",
    "6.12.12+bpo12-cloud-amd64",
    "6.1.0-26-rt-amd64",
    "6.8.0-45-generic",
    "6.8.0-1018-aws",
    "6.11.0-061100rc1-generic",
    "6.11.0-rc4+",
    "5.14.0-503.11.1.el9_5.x86_64",
    "5.15.0-300.163.18.el9uek.x86_64",
    "6.12.5-200.fc41.x86_64",
    "6.1.115-126.197.amzn2023.x86_64",
    "6.6.57.1-7.azl3",
    "6.4.0-150600.23.25-default",
    "6.12.0-arch1-1",
    "6.12.5-zen1-1-zen",
    "5.15.167.4-microsoft-standard-WSL2",
    "6.8.12-4-pve",
    "6.10.14-linuxkit",
    "6.6.51+rpt-rpi-2712",
    "6.18.44",
]
PROCESSORS = [
    "AMD EPYC",
    "AMD EPYC 7763 64-Core Processor",
    "AMD EPYC 7R13 Processor",
    "AMD EPYC-Rome Processor",
    "AMD Ryzen 9 7950X3D 16-Core Processor",
    "AMD Ryzen Threadripper PRO 5965WX 24-Cores",
    "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz",
    "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz",
    "INTEL(R) XEON(R) PLATINUM 8581C CPU @ 2.30GHz",
    "Intel(R) Xeon(R) 6975P-C",
    "Intel Xeon Processor (Skylake, IBRS)",
    "Intel Core Processor (Haswell, no TSX, IBRS)",
    "13th Gen Intel(R) Core(TM) i7-1365U",
    "Intel(R) Core(TM) Ultra 7 155H",
    "QEMU Virtual CPU version 2.5+",
    "Common KVM processor",
    "Arm, implementer 0x41, part 0xd0c",
]


@pytest.mark.parametrize("release", RELEASES)
def test_releases_of_distributions_are_whole(release: str) -> None:
    assert public.kernel_release(release) == release


@pytest.mark.parametrize("model", PROCESSORS)
def test_names_that_makers_give_are_whole(model: str) -> None:
    assert public.processor(model) == model


def test_blanks_between_words_do_not_matter() -> None:
    text = "Intel(R) Xeon(R) CPU           E5-2680 v4 @ 2.40GHz"
    assert public.processor(text) == "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz"


@pytest.mark.parametrize(
    ("release", "told"),
    [
        ("6.12.0-alice@build", "6.12.0 (rest withheld)"),
        ("6.12.0-generic-alice", "6.12.0-generic (rest withheld)"),
        ("6.12.0-genericalice", "6.12.0 (rest withheld)"),
        ("6.12.0-00123-gabcdef123456-dirty", "6.12.0-00123 (rest withheld)"),
        ("6.12.0alice", "withheld"),
        ("alice", "withheld"),
        ("6.8.0-10.0.0.1", "6.8.0 (rest withheld)"),
        ("6.8.0.10.0.0.1", "withheld"),
        ("6.8.0-45-generic\nalice", "6.8.0-45 (rest withheld)"),
    ],
)
def test_what_a_builder_added_is_withheld(release: str, told: str) -> None:
    assert public.kernel_release(release) == told


_AROUND = st.text("abcXYZ0189 .-+_@/()\n", max_size=12)


@given(before=_AROUND, after=_AROUND, known=st.sampled_from([*RELEASES, *PROCESSORS, ""]))
def test_no_secret_gets_through_whatever_is_around_it(before: str, after: str, known: str) -> None:
    for publishable in FUNCTIONS:
        for text in (f"{known}{before}{SECRET}{after}", f"{before}{SECRET}{after}{known}"):
            assert SECRET not in publishable(text)


@given(text=st.one_of(st.text(), st.sampled_from(RELEASES), st.sampled_from(PROCESSORS)))
def test_what_was_published_may_be_published(text: str) -> None:
    for publishable in FUNCTIONS:
        assert publishable(publishable(text)) == publishable(text)


def test_reasons_of_probes_are_known() -> None:
    missing = areas.too_much(1 << 50)
    assert isinstance(missing, NotObservable)
    assert public.reason(missing.reason) == missing.reason


@pytest.mark.parametrize(
    "text",
    [
        "no such file: /home/alice/model.onnx",
        "THP is `alice` on this host, so every page is a base page",
        "the kernel refused the mappings (Invalid argument), alice",
    ],
)
def test_other_reasons_are_not(text: str) -> None:
    assert public.reason(text) == public.UNKNOWN_REASON


def test_errors_in_other_words_are_left_out() -> None:
    told = "the kernel refused MADV_COLLAPSE"
    for known in ("Input/output error", "madvise: Invalid argument"):
        assert public.reason(f"{told} ({known})") == f"{told} ({known})"
    assert public.reason(f"{told} (/home/alice)") == told


def test_examples() -> None:
    assert doctest.testmod(public).failed == 0


def test_the_facts_of_a_host_hold_no_words_of_others(tree: Callable[[str], Path]) -> None:
    root = tree("linux-6.18-vm")
    for path, content in {
        "proc/sys/kernel/osrelease": f"6.18.44-{SECRET}",
        "proc/sys/kernel/arch": SECRET,
        "proc/cpuinfo": f"model name\t: AMD EPYC {SECRET}\nTLB size\t: {SECRET}\n",
    }.items():
        (root / path).write_text(content)
    facts = host_facts(root)
    assert SECRET not in repr(facts)
    assert SECRET not in repr(described(facts))
    assert facts.kernel == "6.18.44 (rest withheld)"
    assert facts.cpu == Cpu("AMD EPYC (rest withheld)", facts.cpu.usable, 1, "withheld")
