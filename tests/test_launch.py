"""Running a command: what it is given, what is passed on, and what is told of it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hugeprobe import host, launch, linux, profiles
from hugeprobe.cli import run as command_line
from hugeprobe.coverage import Backing, Coverage
from hugeprobe.errors import BadRequestError, NotObservable
from hugeprobe.launch import Look, Watched

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PROGRAM = (sys.executable, "-m", "hugeprobe", "run")
GLIBC = host.host_facts().glibc if sys.platform == "linux" else None

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is nothing to start")
with_glibc = pytest.mark.skipif(
    profiles.obstacle(profiles.KEEP, GLIBC) is not None, reason="the profiles need glibc 2.35"
)


def environment(**added: str) -> dict[str, str]:
    steering = ("GLIBC_TUNABLES", "LD_PRELOAD", *profiles._ALIASES.values())
    kept = {name: value for name, value in os.environ.items() if name not in steering}
    return {**kept, **added}


def run(*arguments: str, said: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=NOTEBOOKS,
        env=environment(**env),
        input=said,
        capture_output=True,
        text=True,
        check=False,
    )


def reported(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    file = tmp_path / "report.json"
    done = run("--json", str(file), *arguments)
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(file.read_text())
    return report


# What is passed on --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + 15)]
)
def test_the_status_is_passed_on(script: str, status: int) -> None:
    done = run("--profile", "plain", "--", "sh", "-c", script)
    assert done.returncode == status
    assert f"exit status {status}" in done.stderr


def test_the_streams_are_the_command_s() -> None:
    done = run("--profile", "plain", "sh", "-c", "cat; echo to error >&2", said="to output\n")
    assert done.stdout == "to output\n"
    assert "\nto error\n" in done.stderr


def test_options_behind_the_command_are_the_command_s() -> None:
    done = run("--profile", "plain", "echo", "--profile", "off", "--", "--json")
    assert done.stdout == "--profile off -- --json\n"


def test_what_a_command_is_started_with(tmp_path: Path) -> None:
    """Every signal can be delivered, and THP are as they were."""
    done = run("--profile", "plain", "grep", "-E", "^(SigBlk|THP_enabled)", "/proc/self/status")
    assert "SigBlk:\t0000000000000000" in done.stdout
    assert "THP_enabled:\t0" not in done.stdout


def test_the_profile_off() -> None:
    done = run("--profile", "off", "grep", "THP_enabled", "/proc/self/status")
    if done.returncode:
        pytest.skip("this kernel does not tell")
    assert done.stdout == "THP_enabled:\t0\n"
    assert linux.thp_disabled() is False


@with_glibc
def test_the_environment_of_a_profile_and_what_stays_of_the_user_s() -> None:
    done = run(
        *("--profile", "advise", "sh", "-c", "echo $GLIBC_TUNABLES"),
        GLIBC_TUNABLES="glibc.malloc.arena_max=3",
    )
    assert done.stdout == "glibc.malloc.arena_max=3:glibc.malloc.hugetlb=1\n"
    done = run(
        *("--profile", "advise", "sh", "-c", "echo $GLIBC_TUNABLES"),
        GLIBC_TUNABLES="glibc.malloc.hugetlb=0",
        LD_PRELOAD="",
    )
    assert done.stdout == "glibc.malloc.hugetlb=0\n"
    assert "your own setting stays: glibc.malloc.hugetlb=0" in done.stderr
    assert "LD_PRELOAD is set" in done.stderr


@with_glibc
@pytest.mark.skipif(
    os.uname().machine not in linux.FILTERED_ARCHITECTURES, reason="no filter is known for it"
)
def test_the_profile_whole() -> None:
    done = run("--profile", "whole", "grep", "Seccomp:", "/proc/self/status")
    if "the kernel refused" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout == "Seccomp:\t2\n"
    assert "SystemCallFilter=~mbind:EPERM" in done.stderr


# Signals ------------------------------------------------------------------------------------------

TELLS = """
import signal, sys, time
came = []
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(each, lambda number, _: came.append(number))
print("ready", flush=True)
while not came:
    time.sleep(0.01)
time.sleep(0.5)  # for a second one to come
print(*came, flush=True)
sys.exit(5)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_this_process_reaches_the_command_once(number: signal.Signals) -> None:
    with subprocess.Popen(
        [*PROGRAM, "--profile", "plain", sys.executable, "-c", TELLS],
        cwd=NOTEBOOKS,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"{int(number)}\n"
        assert process.wait() == 5


TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_key_of_the_terminal_reaches_the_command_once() -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [
            *(sys.executable, "-c", TERMINAL, *PROGRAM),
            *("--profile", "plain", sys.executable, "-c", TELLS),
        ],
        cwd=NOTEBOOKS,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        os.write(ours, b"\x03")
        assert process.stdout.readline() == f"{int(signal.SIGINT)}\n"
        assert process.wait() == 5
    os.close(ours)


# What is told -------------------------------------------------------------------------------------

HOLDS = """
import ctypes, time
from hugeprobe import linux
length = 4096 * 4096
start = linux.map_anonymous(length)
linux.advise(start, length, linux.Advice.NOHUGEPAGE)
ctypes.memset(start, 1, length)
"""


def test_a_report_of_a_command_that_was_seen(tmp_path: Path) -> None:
    waits = f"{HOLDS}\nopen({str(tmp_path / 'there')!r}, 'w').close()\ntime.sleep(60)"
    file = tmp_path / "report.json"
    with subprocess.Popen(
        [*PROGRAM, "--profile", "plain", "--json", str(file), sys.executable, "-c", waits],
        cwd=NOTEBOOKS,
        env=environment(),
    ) as process:
        while not (tmp_path / "there").exists():
            assert process.poll() is None
        for _ in range(10):  # a look lasts no longer than a fiftieth of the time
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
        process.terminate()
        assert process.wait() == 128 + signal.SIGTERM
    report = json.loads(file.read_text())
    assert (report["profile"], report["status"]) == ("plain", 128 + signal.SIGTERM)
    assert report["minor_faults"] >= 4096 * 4096 // os.sysconf("SC_PAGE_SIZE")
    largest = report["largest"]
    assert largest["anonymous_kib"] == sum(largest["kib_by_backing"].values()) >= 16 * 1024
    assert largest["kib_by_backing"]["huge"] == largest["huge_kib"]
    assert largest["resident_kib"] >= largest["anonymous_kib"]
    assert (largest["processes"], largest["glibc"]) == (1, GLIBC is not None)


def test_a_command_that_nobody_saw(tmp_path: Path) -> None:
    report = reported(tmp_path, "--profile", "plain", "true")
    assert (report["status"], report["environment"], report["settings_kept"]) == (0, {}, [])
    assert isinstance(report["largest"], str) or report["largest"]["processes"] >= 1


def test_children_count() -> None:
    with subprocess.Popen(
        ["sh", "-c", "cat; true"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as shell:
        watch = launch._Watch("madvise", 2048)
        while True:  # until the shell has started its child
            pause = watch.look(shell.pid)
            if isinstance(watch.largest, Look) and watch.largest.processes == 2:
                break
        assert pause >= launch._SHORTEST_PAUSE
        assert shell.stdin
        shell.stdin.close()
    assert isinstance(watch.largest, Look)
    assert watch.largest.processes == 2


def look(mib: int, huge: int = 0, *, glibc: bool = True) -> Look:
    kib = dict.fromkeys(Backing, 0)
    kib |= {Backing.HUGE: huge * 1024, Backing.SHORT: (mib - huge) * 1024}
    return Look(Coverage(kib), mib * 1024, 1, glibc)


def test_the_last_look_while_it_is_at_its_largest_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = NotObservable("it had ended")
    seen: list[Look | NotObservable] = [
        *(look(100), look(200), look(190, 150), look(50, 50), gone),
    ]
    monkeypatch.setattr(launch._Watch, "_seen", lambda *_: seen.pop(0))
    watch = launch._Watch("madvise", 2048)
    while seen:
        watch.look(1)
    assert watch.largest == look(190, 150)


def test_memory_that_may_not_be_read_is_a_sentence() -> None:
    watch = launch._Watch("madvise", 2048)
    watch.look(2**22 - 1)
    assert "could not be read" in str(watch.largest)


def print_report(report: Watched, capsys: pytest.CaptureFixture[str]) -> str:
    command_line._print_report(report)
    captured = capsys.readouterr()
    assert captured.out == ""
    return " ".join(captured.err.split())


def test_what_kept_the_rest_back_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    report = Watched("keep", 0, 1.5, 1234, 0, look(100, 75))
    said = print_report(report, capsys)
    assert "1,234 minor and 0 major faults" in said
    assert "75.0%" in said
    assert "in mappings shorter than a huge page" in said
    assert "does not use glibc" not in said
    assert set(command_line._WHY) == {*Backing} - {Backing.HUGE}


@pytest.mark.parametrize(("profile", "told"), [("keep", True), ("plain", False), ("off", False)])
def test_another_c_library_is_told(
    profile: str, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    said = print_report(Watched(profile, 0, 1.5, 1, 0, look(100, glibc=False)), capsys)
    assert ("does not use glibc" in said) is told


def test_settings_are_printed_and_nothing_is_started(tmp_path: Path) -> None:
    done = run("--dry-run", "--profile", "off", "touch", str(tmp_path / "started"))
    assert (done.returncode, done.stdout) == (0, "")
    assert "MemoryTHP=" in done.stderr
    assert "hugeprobe run --profile off -- COMMAND" in done.stderr
    assert not (tmp_path / "started").exists()
    assert run("--dry-run").stderr.startswith("hugeprobe: profile ")


# What cannot be done ------------------------------------------------------------------------------


def refused(words: str, arguments: Sequence[str], tmp_path: Path) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "started").exists()


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    started = ("touch", str(tmp_path / "started"))
    script = tmp_path / "script"
    script.write_text("exit 0\n")
    for words, arguments in (
        ("No command was given", ()),
        ("there is no such program", ("--", "no-such-program-here")),
        ("may not be executed", ("--", str(script))),
        ("choose one of auto, plain", ("--profile", "fast", *started)),
        ("The command was not started", ("--json", str(tmp_path / "no/such"), *started)),
    ):
        refused(words, arguments, tmp_path)


@pytest.mark.parametrize("name", ["advise", "keep", "whole"])
def test_a_profile_that_cannot_work_starts_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = dataclasses.replace(host.host_facts(), glibc=None)
    monkeypatch.setattr(host, "host_facts", lambda: facts)
    with pytest.raises(BadRequestError, match=r"not started: the profile .* glibc 2\.35"):
        command_line._chosen(name)
    assert command_line._chosen("plain") == (profiles.PLAIN, "")
    assert command_line._chosen("auto")[0] is profiles.PLAIN


FAILS = """
from hugeprobe import launch, linux, profiles
from hugeprobe.errors import ProbeError
def fail(): raise OSError(22, "Invalid argument")
linux.refuse_mbind = fail
try:
    launch.run(["true"], profiles.WHOLE, {})
except ProbeError as error:
    print(error)
"""


def test_a_kernel_that_refuses_the_profile() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILS], cwd=NOTEBOOKS, capture_output=True, text=True, check=True
    )
    assert "Choose the profile keep or plain" in done.stdout
