"""Settings of the host: set on trees of other kernels, and put back however the benchmark ends.

A kernel answers a write with brackets round another word; the file of a tree holds what was written
to it last.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from hugeprobe import host, hostmodes
from hugeprobe.errors import MalformedError, NotObservable, NotPermittedError, ProbeError
from hugeprobe.hostmodes import (
    ALWAYS,
    HOST_MODES,
    MTHP_64K_ALWAYS,
    MTHP_64K_MADVISE,
    MTHP_ALWAYS,
    MTHP_MADVISE,
    Change,
    HostMode,
    keeper,
)
from hugeprobe.sizes import page_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Tree = Callable[[str], Path]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no host to look at")

UBUNTU = "linux-6.8-ubuntu"  # has every size, and more than one that is not never
MTHP_ALWAYS_ON_UBUNTU = {
    f"hugepages-{kib}kB/enabled": "always" for kib in (64, 128, 256, 512, 1024)
}
BENCHMARK = """
import resource, sys, time
from pathlib import Path
from hugeprobe import hostmodes
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
with hostmodes.keeper(Path(sys.argv[1])) as kept, kept.applied(hostmodes.MTHP_ALWAYS):
    print("applied", flush=True)
    for _ in range(6000):  # one long sleep would not notice a Ctrl-C just before it
        time.sleep(0.01)
"""


def settings(root: Path) -> dict[str, str]:
    """Return the word in force of each setting, of a kernel or of what was last written."""
    folder = root / host.THP
    files = [folder / "enabled", *folder.glob("hugepages-*kB/enabled")]
    return {
        str(file.relative_to(folder)): host.choice(file) or file.read_text()
        for file in sorted(files)
    }


@contextmanager
def sealed(text: str) -> Iterator[Path]:
    """Give a file that says it may be written but refuses it, also to root (``fcntl(2)``)."""
    descriptor = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    try:
        os.write(descriptor, text.encode())
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


def lose_watchdog() -> None:
    (watchdog,) = psutil.Process().children()
    watchdog.kill()
    # Waited for without taking its status away from the keeper.
    os.waitid(os.P_PID, watchdog.pid, os.WEXITED | os.WNOWAIT)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A process that is in the middle of an arm, and what the settings were before it."""

    process: subprocess.Popen[str]
    root: Path
    before: dict[str, str]

    def watchdog(self) -> psutil.Process:
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def wait(self) -> int:
        """Wait for it and the watchdog, which both hold its standard error; return the status."""
        self.process.communicate(timeout=30)
        return self.process.returncode


@pytest.fixture
def benchmark(tree: Tree, tmp_path: Path) -> Iterator[Benchmark]:
    root = tree(UBUNTU)
    before = settings(root)
    gone = tmp_path / "gone"
    gone.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", BENCHMARK, root],
        cwd=gone,
        env={**os.environ, "PYTHONPATH": str(Path(hostmodes.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "applied\n"
        assert settings(root) == before | MTHP_ALWAYS_ON_UBUNTU
        gone.rmdir()
        yield Benchmark(process, root, before)
        process.kill()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (ALWAYS, {"enabled": "always", "hugepages-2048kB/enabled": "inherit"}),
        (MTHP_64K_ALWAYS, {"hugepages-64kB/enabled": "always"}),
        (MTHP_ALWAYS, MTHP_ALWAYS_ON_UBUNTU),
        (
            MTHP_64K_MADVISE,
            {
                "enabled": "madvise",
                "hugepages-2048kB/enabled": "inherit",
                "hugepages-64kB/enabled": "madvise",
            },
        ),
    ],
)
def test_a_mode_names_what_it_sets(tree: Tree, mode: HostMode, expected: dict[str, str]) -> None:
    assert mode.settings(tree(UBUNTU)) == expected


def test_only_sizes_that_the_kernel_offers_are_set(tree: Tree) -> None:
    root = tree("linux-6.12-aarch64-64k")
    assert MTHP_ALWAYS.settings(root) == {"hugepages-128kB/enabled": "always"}
    assert str(MTHP_64K_ALWAYS.settings(root)) == (
        "Not observable here, because this kernel offers no huge pages of 64 KiB."
    )
    assert ALWAYS.settings(root) == {
        "enabled": "always",
        "hugepages-524288kB/enabled": "inherit",
    }


def test_before_linux_6_8_there_is_the_mode_of_the_system_only(tree: Tree) -> None:
    root = tree("linux-6.1-debian")
    assert ALWAYS.settings(root) == {"enabled": "always"}
    with keeper(root) as kept, kept.applied(MTHP_MADVISE) as changes:
        assert isinstance(changes, NotObservable)
        assert "Linux 6.8" in changes.reason
        assert settings(root) == {"enabled": "always"}


def test_without_thp_there_is_nothing_to_set(tree: Tree) -> None:
    root = tree("linux-6.6-no-thp")
    for mode in HOST_MODES:
        assert isinstance(mode.settings(root), NotObservable)
    with pytest.raises(ProbeError, match="built without transparent huge pages"), keeper(root):
        pass


def test_modes_one_after_another_tell_what_they_change_and_leave_no_trace(tree: Tree) -> None:
    root = tree(UBUNTU)
    before = settings(root)
    with keeper(root) as kept:
        for mode in HOST_MODES:
            with kept.applied(mode) as changes:
                now = settings(root)
                assert isinstance(changes, tuple)
                assert {each.setting: each.after for each in changes} == mode.settings(root)
                assert {each.setting: each.before for each in changes}.items() <= before.items()
                assert now == before | {each.setting: each.after for each in changes}
            assert settings(root) == before
    assert settings(root) == before
    assert not psutil.Process().children()


def test_an_error_in_the_benchmark_puts_all_back_and_is_raised(tree: Tree) -> None:
    root = tree(UBUNTU)
    before = settings(root)

    def break_down() -> None:
        with keeper(root) as kept, kept.applied(MTHP_ALWAYS):
            assert settings(root) != before
            _ = 1 // 0

    with pytest.raises(ZeroDivisionError):
        break_down()
    assert settings(root) == before


@pytest.mark.parametrize("watched", [True, False])
def test_what_was_set_outside_a_mode_is_put_back_at_the_end(tree: Tree, watched: bool) -> None:
    root = tree(UBUNTU)
    before = settings(root)
    with keeper(root):
        (root / host.THP / "enabled").write_text("never")
        if not watched:
            lose_watchdog()
    assert settings(root) == before


@pytest.mark.parametrize("to", [os.kill, os.killpg])
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGABRT, signal.SIGKILL],
    ids=lambda number: number.name,
)
def test_settings_are_put_back_whatever_ends_the_benchmark(
    benchmark: Benchmark, number: signal.Signals, to: Callable[[int, int], None]
) -> None:
    to(benchmark.process.pid, number)
    assert benchmark.wait() == -number
    assert settings(benchmark.root) == benchmark.before


def test_the_watchdog_ignores_polite_signals(benchmark: Benchmark) -> None:
    watchdog = benchmark.watchdog()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        watchdog.send_signal(number)
    benchmark.process.kill()
    benchmark.wait()
    assert settings(benchmark.root) == benchmark.before


def test_no_benchmark_starts_before_the_settings_of_a_killed_one_are_put_back(
    benchmark: Benchmark,
) -> None:
    watchdog = benchmark.watchdog()
    watchdog.suspend()
    try:
        benchmark.process.kill()
        benchmark.process.wait()
        with pytest.raises(ProbeError, match="another benchmark"), keeper(benchmark.root):
            pass
        assert settings(benchmark.root) != benchmark.before
    finally:
        watchdog.resume()
    benchmark.wait()
    assert settings(benchmark.root) == benchmark.before


def test_a_second_benchmark_is_refused_and_the_first_goes_on(tree: Tree) -> None:
    root = tree(UBUNTU)
    before = settings(root)
    with keeper(root) as kept:
        with pytest.raises(ProbeError, match="another benchmark"), keeper(root):
            pass
        with kept.applied(MTHP_64K_MADVISE):
            assert settings(root) == before | {"hugepages-64kB/enabled": "madvise"}
    assert settings(root) == before


@pytest.mark.parametrize("inside", [True, False], ids=["in an arm", "between arms"])
def test_a_benchmark_stops_when_it_has_lost_its_watchdog(tree: Tree, inside: bool) -> None:
    root = tree(UBUNTU)
    before = settings(root)

    def measure() -> None:
        with keeper(root) as kept:
            if not inside:
                lose_watchdog()
            with kept.applied(MTHP_ALWAYS):
                assert inside, "an arm was measured without a watchdog"
                lose_watchdog()

    with pytest.raises(ProbeError, match="ended by someone else"):
        measure()
    assert settings(root) == before


def test_a_watchdog_that_does_not_start_stops_the_benchmark(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ProbeError, match="did not start"), keeper(tree(UBUNTU)):
        pass


def test_a_value_that_the_kernel_refuses_puts_back_those_before_it(tree: Tree) -> None:
    root = tree(UBUNTU)
    before = settings(root)
    file = root / host.THP / "hugepages-512kB/enabled"
    with sealed(file.read_text()) as unwritable:
        file.unlink()
        file.symlink_to(unwritable)
        with (
            pytest.raises(NotPermittedError, match=r"hugepages-512kB/enabled was to be always"),
            keeper(root) as kept,
            kept.applied(MTHP_ALWAYS),
        ):
            pytest.fail("an arm was measured without one of its settings")
        assert settings(root) == before


def test_a_setting_that_cannot_be_put_back_is_named_and_the_others_are(tree: Tree) -> None:
    root = tree(UBUNTU)
    before = settings(root)
    file = root / host.THP / "hugepages-128kB/enabled"

    def measure() -> None:
        with keeper(root) as kept, kept.applied(MTHP_ALWAYS):
            file.unlink()
            file.mkdir()

    with pytest.raises(ProbeError, match=r"Write, as root, never to \S*128kB/enabled \(Is a dir"):
        measure()
    file.rmdir()
    file.write_text("never")
    assert settings(root) == before


def test_nothing_is_changed_where_the_settings_may_not_be_written(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(UBUNTU)
    before = settings(root)
    # As root, and with /sys mounted read-only, only the answer of the kernel tells.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(NotPermittedError, match="as root"), keeper(root):
        pass
    assert settings(root) == before


def test_a_setting_that_does_not_tell_its_value_is_not_touched(tree: Tree) -> None:
    root = tree(UBUNTU)
    (root / host.THP / "enabled").write_text("something new")
    with pytest.raises(MalformedError, match="brackets"), keeper(root):
        pass


@pytest.mark.skipif(
    not os.access(f"/{host.THP}/enabled", os.W_OK), reason="this user may not set host modes"
)
def test_this_host_takes_the_value_that_it_has() -> None:
    root = Path("/")
    pmd_kib = page_sizes().pmd // 1024
    name = f"hugepages-{pmd_kib}kB/enabled"
    before = settings(root)
    if name not in before:
        pytest.skip("this kernel has no settings for each size")
    same = HostMode("same", "Nothing is changed.", sizes_kib=(pmd_kib,), per_size=before[name])
    with keeper(root) as kept, kept.applied(same) as changes:
        assert changes == (Change(name, before[name], before[name]),)
        assert settings(root) == before
    assert settings(root) == before
