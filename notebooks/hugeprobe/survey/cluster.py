"""Ask every node of a Dask cluster, whatever happens to some of them.

A node is asked outside of Dask's task queue, so a busy cluster answers too, nothing is tried again
behind our back, and the death of a worker is known at once. The question consists of names of the
standard library and of an archive of this package, for a Python process of its own: a node needs
no hugeprobe, one that has another version does not use it, other threads of the worker do not map
memory while the probe does, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import secrets
import subprocess
import tempfile
import time
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from hugeprobe import optional
from hugeprobe.errors import BadRequestError
from hugeprobe.survey.node import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXTRA: Final = "fleet"
"""Name of the optional dependencies that a survey needs."""

TIMEOUT: Final = 60.0
"""Seconds that a node has for its answer, unless told otherwise."""

ANSWERS: Final = TypeAdapter(Answer)
"""Reads what nodes send, and refuses what is not an answer."""

_AT_ONCE: Final = 64
"""Nodes that are asked at the same time: each takes two connections of the scheduler."""

_PACKAGE: Final = Path(__file__).parents[1]
_PARTS: Final = ("*.py", "survey/__init__.py", "survey/node.py")

_START: Final = """
import os, sys
archive = os.memfd_create("hugeprobe")
with open(archive, "wb", closefd=False) as file:
    file.write(sys.stdin.buffer.read())
sys.path.insert(0, f"/proc/self/fd/{archive}")
from hugeprobe.survey.node import main
main()
"""
"""Program that takes the archive in and runs it from memory: nothing is written on the node."""

_RUN: Final = """__import__("subprocess").run(
    [__import__("sys").executable, "-c", start, *arguments],
    input=archive, capture_output=True, timeout=seconds, check=False,
)"""
"""What a worker evaluates. Text, because compiled functions fit one version of Python only."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Why a node gave no answer, as a sentence that names no machine."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster: all workers at one network address.

    Parameters
    ----------
    number
        From 1, in the order of the addresses.
    answer
        What it said, or why it said nothing.
    name
        Names and addresses of its workers; None unless they were asked for.
    """

    number: int
    answer: Answer | NoAnswer
    name: str | None = None

    def __str__(self) -> str:
        return f"node {self.number}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True, slots=True)
class Survey:
    """Every node that was in the cluster when the survey began.

    Parameters
    ----------
    nodes
        In the order of their numbers.
    missing
        How many nodes were expected, but never joined.
    """

    nodes: tuple[Node, ...]
    missing: int = 0

    @property
    def answers(self) -> dict[int, Answer]:
        """The answers, by the number of the node."""
        return {node.number: node.answer for node in self.nodes if isinstance(node.answer, Answer)}

    @property
    def silent(self) -> tuple[Node, ...]:
        """The nodes that gave no answer."""
        return tuple(node for node in self.nodes if isinstance(node.answer, NoAnswer))

    @property
    def is_complete(self) -> bool:
        """Whether every node that was expected answered."""
        return not self.silent and not self.missing

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        kernels = len({answer.kernel_key for answer in self.answers.values()})
        said = f"{len(self.answers):,} of {len(self.nodes):,} nodes answered"
        if kernels < len(self.answers):
            said += f"; some share a kernel: there are {kernels:,}"
        if self.missing:
            said += f"; {self.missing:,} more were expected, but never joined"
        return said + "."


@dataclass(frozen=True, slots=True)
class _Place:
    """Where to ask: the workers of one node."""

    workers: tuple[str, ...]
    name: str


@dataclass(frozen=True, slots=True)
class _Question:
    """What every node is asked.

    Parameters
    ----------
    arguments
        Of :func:`hugeprobe.survey.node.main`.
    archive
        The package, as a ZIP file.
    seconds
        Until when the answer must be there.
    """

    arguments: tuple[str, str]
    archive: bytes
    seconds: float

    @property
    def too_late(self) -> NoAnswer:
        """What is said of a node that took longer."""
        return NoAnswer(
            f"It gave no answer within {self.seconds:g} s: it is overloaded, stopped or cut off."
        )


def survey(
    scheduler: str | None = None,
    *,
    count: bool = False,
    timeout: float = TIMEOUT,
    expect: int = 1,
    names: bool = False,
) -> Survey:
    """Ask every node of a cluster for its facts and its alignment rule.

    Parameters
    ----------
    scheduler
        Address of the Dask scheduler, such as ``tcp://10.0.0.1:8786``; without one, a cluster of
        one worker is started here for the time of the survey.
    count
        Whether the nodes also count what memory they give; takes each 64 MiB for about a second.
    timeout
        Seconds that a node has for its answer. Answers that come later are kept as long as others
        are waited for.
    expect
        Number of nodes to wait for, at most ``timeout`` seconds.
    names
        Whether to keep the names and addresses of workers.

    Raises
    ------
    BadRequestError
        If there is no such scheduler, it has no workers, or Dask is not installed.
    """
    if scheduler is None:
        with local_cluster() as here:
            return survey(here, count=count, timeout=timeout, expect=expect, names=names)
    arguments = (secrets.token_hex(16), "count" if count else "look")
    question = _Question(arguments, _archive(), timeout)
    with _connected(scheduler, timeout) as client:
        places = _places(client, expect, timeout)
        answers = client.sync(_ask_all, client, places, question)
    nodes = tuple(
        Node(number, answer, place.name if names else None)
        for number, (place, answer) in enumerate(zip(places, answers, strict=True), start=1)
    )
    return Survey(nodes, missing=max(0, expect - len(nodes)))


@contextmanager
def local_cluster(nodes: int = 1) -> Iterator[str]:
    """Start a cluster on this machine, give the address of its scheduler, and end it again.

    Parameters
    ----------
    nodes
        Number of worker processes; each has a loopback address of its own, and so counts as a node.
    """
    distributed = optional.load("distributed", EXTRA)
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "nthreads": 1,
            "memory_limit": 0,
            "dashboard": False,
            "local_directory": folder,
            "silence_logs": logging.CRITICAL,
        }
        with distributed.SpecCluster(
            scheduler={
                "cls": distributed.Scheduler,
                "options": {"host": "127.0.0.1", "dashboard": False},
            },
            workers={
                index: {
                    "cls": distributed.Nanny,
                    "options": {**options, "host": f"127.0.0.{index + 1}"},
                }
                for index in range(nodes)
            },
            silence_logs=logging.CRITICAL,
        ) as cluster:
            yield cluster.scheduler_address


@contextmanager
def _connected(scheduler: str, timeout: float) -> Iterator[Any]:
    """Give a client of the scheduler."""
    distributed = optional.load("distributed", EXTRA)
    try:
        distributed.comm.resolve_address(
            scheduler
        )  # a client is slow to say that it makes no sense
        client = distributed.Client(scheduler, timeout=timeout, set_as_default=False)
    except (OSError, ValueError) as error:
        raise BadRequestError(
            f"The Dask scheduler at '{scheduler}' was asked for, but could not be reached: "
            f"{error}. Give the address that it prints when it starts, such as "
            "tcp://10.0.0.1:8786."
        ) from error
    with client:
        yield client


def _places(client: Any, expect: int, timeout: float) -> list[_Place]:
    """Wait for ``expect`` nodes; return those that there are in the end, by address."""
    deadline = time.monotonic() + timeout
    while True:
        workers: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
        hosts = sorted({worker["host"] for worker in workers.values()}, key=_in_order)
        if len(hosts) >= expect or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    if not hosts:
        raise BadRequestError(
            f"The nodes of the cluster were asked for, but no worker joined within {timeout:g} s. "
            "Start workers with `dask worker ADDRESS`, or give them more time with --timeout."
        )
    places = []
    for host in hosts:
        there = {a: w["name"] for a, w in sorted(workers.items()) if w["host"] == host}
        names = dict.fromkeys(str(each) for pair in there.items() for each in reversed(pair))
        places.append(_Place(tuple(there), ", ".join(names)))
    return places


def _in_order(host: str) -> list[tuple[int, str]]:
    """Return a key that sorts 10.0.0.9 before 10.0.0.10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", host)]


async def _ask_all(
    client: Any, places: Sequence[_Place], question: _Question
) -> list[Answer | NoAnswer]:
    """Ask all nodes at once, each for itself, and wait until each has answered or is too late."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def ask(place: _Place) -> asyncio.Task[Answer | NoAnswer]:
        async with free:
            asked = asyncio.create_task(_ask_node(client, place, question))
            await asyncio.wait({asked}, timeout=question.seconds)
        return asked

    asked = await asyncio.gather(*map(ask, places))
    for each in asked:
        each.cancel()  # does nothing to those that have answered, even late
    return [each.result() if each.done() else question.too_late for each in asked]


async def _ask_node(client: Any, place: _Place, question: _Question) -> Answer | NoAnswer:
    """Ask one worker of the node after the other, until one answers."""
    answer: Answer | NoAnswer = question.too_late
    for worker in place.workers:
        answer = await _ask_worker(client, worker, question)
        if isinstance(answer, Answer):
            break
    return answer


async def _ask_worker(client: Any, worker: str, question: _Question) -> Answer | NoAnswer:
    variables = {
        "start": _START,
        "arguments": question.arguments,
        "archive": question.archive,
        "seconds": question.seconds,
    }
    try:
        # In a thread of the worker, which meanwhile goes on to speak with the scheduler.
        said = await client.run(
            asyncio.to_thread, eval, _RUN, variables, workers=[worker], on_error="return"
        )
    except OSError as error:
        said = {worker: error}
    return _understood(said[worker], question)


def _understood(said: object, question: _Question) -> Answer | NoAnswer:
    """Return the answer in what a worker sent back, be it an exception.

    Texts of exceptions name machines and paths, so only their kinds are passed on.
    """
    if isinstance(said, subprocess.TimeoutExpired):
        return question.too_late
    if isinstance(said, subprocess.CompletedProcess) and said.returncode:
        return NoAnswer(_end_of(said))
    if isinstance(said, subprocess.CompletedProcess):
        try:
            return ANSWERS.validate_json(said.stdout)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            return NoAnswer(f"Its answer has another form than asked for (at '{where}').")
    if isinstance(said, OSError) and said.errno is None:  # Dask's own, not a system call's
        return NoAnswer(
            f"The connection to it broke while it was asked ({type(said).__name__}): "
            "its worker or the node itself is gone."
        )
    return NoAnswer(f"Its worker could not start Python for the question ({type(said).__name__}).")


def _end_of(process: subprocess.CompletedProcess[bytes]) -> str:
    """Say why the process on the node failed."""
    if process.returncode < 0:
        return f"The probe was killed there by signal {-process.returncode}."
    last = process.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    if last.startswith("hugeprobe: "):
        return last.removeprefix("hugeprobe: ")
    kind = re.match(r"[\w.]+", last)
    return f"The probe broke there ({kind[0] if kind else f'status {process.returncode}'})."


def _archive() -> bytes:
    """Return the modules that a node needs, as a ZIP file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in _PARTS:
            for file in sorted(_PACKAGE.glob(part)):
                archive.write(file, file.relative_to(_PACKAGE.parent))
    return buffer.getvalue()
