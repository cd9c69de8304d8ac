"""A Dask cluster of light processes: ``python fleet.py FOLDER WORKERS``, until it is ended.

Each worker is a real process with a loopback address of its own. They are forked from one process
that has imported everything, so 200 of them share most of their memory. ``FOLDER/started.json``
tells the address of the scheduler, once it is there, and the process numbers of the workers.
WORKERS is JSON: ``[host, python]`` for each, the latter being the Python that it thinks it is.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from pathlib import Path

import dask
from distributed import Scheduler, Worker
from distributed.versions import get_versions

_PATIENT = {"distributed.comm.timeouts.connect": "300s"}
"""A machine that has other things to do is slow, but not dead."""

_QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.http.routes": [],
    "distributed.admin.tick.interval": "10s",
    "distributed.admin.system-monitor.interval": "60s",
    "distributed.admin.system-monitor.gil.enabled": False,
}
"""What workers do besides working, 200 of which would keep two processors busy."""

_STARTED = "started.json"
_SCHEDULER = "scheduler.json"


async def work(folder: Path, host: str) -> None:
    async with Worker(
        scheduler_file=str(folder / _SCHEDULER),
        host=host,
        nthreads=1,
        memory_limit=0,
        dashboard=False,
        local_directory=str(folder),
    ) as worker:
        await worker.finished()


async def schedule(folder: Path, pids: list[int]) -> None:
    async with Scheduler(
        host="127.0.0.1", dashboard_address=":0", scheduler_file=str(folder / _SCHEDULER)
    ) as scheduler:
        unfinished = folder / "unfinished"
        unfinished.write_text(json.dumps({"address": scheduler.address, "pids": pids}))
        unfinished.replace(folder / _STARTED)
        await scheduler.finished()


def main() -> None:
    folder = Path(sys.argv[1])
    dask.config.set(_QUIET | _PATIENT)
    get_versions()  # keeps what it finds, for all workers
    pids = []
    gc.freeze()
    for host, python in json.loads(sys.argv[2]):
        if pid := os.fork():
            pids.append(pid)
            continue
        sys.executable = python
        asyncio.run(work(folder, host))
        os._exit(0)
    asyncio.run(schedule(folder, pids))


if __name__ == "__main__":
    main()
