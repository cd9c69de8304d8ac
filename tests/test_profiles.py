"""What a program is started with: the choice for a host, the merge, and the lines for a unit."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hugeprobe import host, linux, profiles
from hugeprobe.errors import BadRequestError, NotObservable
from hugeprobe.profiles import ADVISE, KEEP, OFF, PLAIN, PROFILES, WHOLE, Profile

if TYPE_CHECKING:
    from collections.abc import Callable

    Tree = Callable[[str], Path]

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def facts(tree: Tree, name: str = "linux-6.18-vm", glibc: str | None = "2.36") -> host.HostFacts:
    return dataclasses.replace(host.host_facts(tree(name)), glibc=glibc)


def test_the_environment_of_each_profile() -> None:
    assert PLAIN.env == OFF.env == {}
    assert ADVISE.env == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert (
        WHOLE.env
        == KEEP.env
        == {
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:"
            "glibc.malloc.top_pad=67108864:glibc.malloc.trim_threshold=1073741824"
        }
    )
    assert [each.thp_disabled for each in PROFILES] == [False, False, False, False, True]
    assert [each.mbind_refused for each in PROFILES] == [False, False, False, True, False]


@pytest.mark.skipif(not host.host_facts().glibc, reason="there is no glibc to ask")
def test_glibc_knows_every_tunable() -> None:
    """The dynamic linker lists the tunables, with the values that it would use."""
    maps = Path("/proc/self/maps").read_text()
    linkers = {line.split()[-1] for line in maps.splitlines() if "/ld-linux" in line}
    if not linkers or profiles.obstacle(KEEP, host.host_facts().glibc):
        pytest.skip("this glibc is older than the profiles need, or has no dynamic linker")
    listed = subprocess.run(
        [linkers.pop(), "--list-tunables"],
        env=KEEP.env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    values = dict(line.split(":")[:2] for line in listed.splitlines())
    used = {name: int(values[name].split()[0], 0) for name in profiles.KEEP_TUNABLES}
    assert used == profiles.KEEP_TUNABLES


@pytest.mark.parametrize("glibc", ["2.35", "2.36", "2.41.9000", "3.0"])
def test_new_enough_versions(glibc: str) -> None:
    assert profiles.keep_environment(glibc) == KEEP.env
    assert all(profiles.obstacle(each, glibc) is None for each in PROFILES)


@pytest.mark.parametrize(
    ("glibc", "found"), [("2.31", "this is glibc 2.31"), (None, "the C library here is not glibc")]
)
def test_other_c_libraries(glibc: str | None, found: str) -> None:
    missing = profiles.keep_environment(glibc)
    assert isinstance(missing, NotObservable)
    assert found in missing.reason
    assert "hugeprobe collapse" in missing.reason
    assert [bool(profiles.obstacle(each, glibc)) for each in PROFILES] == [0, 1, 1, 1, 0]


def test_choice_for_one_memory_node(tree: Tree) -> None:
    choice = profiles.choose(facts(tree))
    assert (choice.profile, "one memory node" in choice.reason) == (WHOLE, True)


def test_choice_for_several_memory_nodes(tree: Tree) -> None:
    found = facts(tree)
    found = dataclasses.replace(found, cpu=dataclasses.replace(found.cpu, numa_nodes=2))
    assert profiles.choose(found).profile is KEEP


def test_choice_for_an_architecture_without_a_filter(tree: Tree) -> None:
    choice = profiles.choose(dataclasses.replace(facts(tree), architecture="riscv64"))
    assert (choice.profile, "riscv64" in choice.reason) == (KEEP, True)


@pytest.mark.parametrize("glibc", ["2.31", None])
def test_choice_without_a_glibc_that_listens(tree: Tree, glibc: str | None) -> None:
    choice = profiles.choose(facts(tree, glibc=glibc))
    assert (choice.profile, "glibc 2.35 or newer" in choice.reason) == (PLAIN, True)


def test_choice_where_nothing_can_be_huge(tree: Tree) -> None:
    never = dataclasses.replace(facts(tree), thp_mode="never")
    for found in (never, facts(tree, "linux-6.6-no-thp")):
        choice = profiles.choose(found)
        assert (choice.profile, "hugeprobe collapse" in choice.reason) == (PLAIN, True)


def test_names_are_found() -> None:
    assert [profiles.find(each.name) for each in PROFILES] == list(PROFILES)
    with pytest.raises(
        BadRequestError, match="choose one of auto, plain, advise, keep, whole, off"
    ):
        profiles.find("fast")


def test_merge_into_an_environment_without_settings() -> None:
    merged = profiles.merge(KEEP, {"HOME": "/"})
    assert merged.env == {"HOME": "/", **KEEP.env}
    assert (merged.added, merged.kept) == (KEEP.env, ())


def test_settings_of_the_user_win() -> None:
    theirs = "glibc.malloc.arena_max=2:glibc.malloc.top_pad=0"
    merged = profiles.merge(KEEP, {"GLIBC_TUNABLES": theirs, "MALLOC_TRIM_THRESHOLD_": "7"})
    expected = f"{theirs}:glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0"
    assert merged.env["GLIBC_TUNABLES"] == expected
    assert merged.added == {"GLIBC_TUNABLES": expected}
    assert merged.kept == ("glibc.malloc.top_pad=0", "MALLOC_TRIM_THRESHOLD_=7")


def test_a_merge_that_adds_nothing() -> None:
    environ = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=2"}
    merged = profiles.merge(ADVISE, environ)
    assert (merged.env, merged.added, merged.kept) == (environ, {}, ("glibc.malloc.hugetlb=2",))
    assert profiles.merge(PLAIN, environ).env == environ


@pytest.mark.parametrize("theirs", ["", ":", "nonsense", "glibc.malloc.top_pad=1=2"])
def test_settings_that_glibc_would_not_take(theirs: str) -> None:
    assert (
        profiles.merge(ADVISE, {"GLIBC_TUNABLES": theirs})
        .env["GLIBC_TUNABLES"]
        .endswith("glibc.malloc.hugetlb=1")
    )


def test_lines_for_a_unit_and_for_a_shell() -> None:
    setting = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1"
    assert profiles.unit_lines(ADVISE) == [f'Environment="{setting}"']
    assert profiles.shell_lines(ADVISE) == [f"env {setting} COMMAND"]
    assert profiles.unit_lines(WHOLE)[-1] == "SystemCallFilter=~mbind:EPERM"
    assert "--profile whole" in profiles.shell_lines(WHOLE)[-1]
    assert "MemoryTHP=" in profiles.unit_lines(OFF)[0]
    assert profiles.shell_lines(OFF) == [
        "# A shell cannot forbid huge pages: hugeprobe run --profile off -- COMMAND"
    ]
    assert profiles.unit_lines(PLAIN) == profiles.shell_lines(PLAIN) == []
    merged = profiles.merge(ADVISE, {"GLIBC_TUNABLES": "a.b=it's"})
    assert profiles.shell_lines(ADVISE, merged.added) == [
        "env 'GLIBC_TUNABLES=a.b=it'\"'\"'s:glibc.malloc.hugetlb=1' COMMAND"
    ]


REFUSED = """
import ctypes, os, shutil, sys
from hugeprobe import linux
grep = shutil.which("grep")  # nobody may not be let into the folder of Python's modules
if len(sys.argv) > 1:
    os.setuid(65534)
linux.refuse_mbind()
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 237, "aarch64": 235}[os.uname().machine]
print(libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno(), os.getpid() > 0, flush=True)
os.execv(grep, [grep, "-E", "^(Seccomp|NoNewPrivs):", "/proc/self/status"])
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in linux.FILTERED_ARCHITECTURES,
    reason="no filter is known for this system",
)
@pytest.mark.parametrize("arguments", [[], ["as nobody"]])
def test_mbind_is_refused_and_nothing_else(arguments: list[str]) -> None:
    if arguments and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, *arguments],
        cwd=NOTEBOOKS,
        capture_output=True,
        text=True,
        check=False,
    )
    if "seccomp" in done.stderr or "Invalid argument" in done.stderr:
        pytest.skip("this kernel has no seccomp filters")
    assert done.stderr == ""
    first, *status = done.stdout.splitlines()
    assert first == "-1 1 True"  # EPERM
    assert "Seccomp:\t2" in status
    assert not arguments or "NoNewPrivs:\t1" in status


def test_a_profile_is_plain_data() -> None:
    assert Profile(**dataclasses.asdict(WHOLE)) == WHOLE
