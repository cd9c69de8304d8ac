"""Ask every node of a Dask cluster, whatever happens to some of them.

A node is asked outside of Dask's task queue, so a busy cluster answers too, nothing is tried again
behind our back, and the death of a worker is known at once.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hugeprobe import optional
from hugeprobe.errors import BadRequestError
from hugeprobe.survey.node import Answer
from hugeprobe.survey.outcome import NoAnswer, Node, Survey
from hugeprobe.survey.question import Question, packed_modules, understood

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXTRA: Final = "fleet"
"""Name of the optional dependencies that a survey needs."""

TIMEOUT: Final = 60.0
"""Seconds that a node has for its answer, unless told otherwise."""

_AT_ONCE: Final = 64
"""Nodes that are asked at the same time: each takes two connections of the scheduler."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where to ask: the workers of one node."""

    workers: tuple[str, ...]
    name: str


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
    question = Question(arguments, packed_modules(), timeout)
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
    settings = optional.load("dask.config", EXTRA)
    # The scheduler takes no folder of its own, and would leave one among the temporary files.
    with tempfile.TemporaryDirectory() as folder, settings.set({"temporary-directory": folder}):
        options = {
            "nthreads": 1,
            "memory_limit": 0,
            "dashboard": False,
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
    client: Any, places: Sequence[_Place], question: Question
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


async def _ask_node(client: Any, place: _Place, question: Question) -> Answer | NoAnswer:
    """Ask one worker of the node after the other, until one answers."""
    answer: Answer | NoAnswer = question.too_late
    for worker in place.workers:
        answer = await _ask_worker(client, worker, question)
        if isinstance(answer, Answer):
            break
    return answer


async def _ask_worker(client: Any, worker: str, question: Question) -> Answer | NoAnswer:
    expression, names = question.call
    try:
        # In a thread of the worker, which meanwhile goes on to speak with the scheduler.
        said = await client.run(
            asyncio.to_thread, eval, expression, names, workers=[worker], on_error="return"
        )
    except OSError as error:
        said = {worker: error}
    return understood(said[worker], question)
