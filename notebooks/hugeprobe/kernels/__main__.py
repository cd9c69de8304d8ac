"""``python -m hugeprobe.kernels``: prepare the kernels, run the probes in all, write the record."""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import signal
import sys
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from hugeprobe import records, workloads
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.kernels import guest, images
from hugeprobe.kernels.archive import Archive
from hugeprobe.kernels.change import LENGTH_CONDITION
from hugeprobe.kernels.inference import WORKLOAD
from hugeprobe.kernels.machine import QEMU, Machine, working_accelerator
from hugeprobe.kernels.processes import require
from hugeprobe.kernels.record import COMMAND, RECORD, Collector, KernelsRecord, KernelUnderSetting

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from hugeprobe.kernels.images import Kernel

_T = TypeVar("_T")

_PACKAGE_PARENT: Final = Path(__file__).parents[2]
_GUEST_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True)
class Laboratory:
    """One run: where things are kept, and who is told of the progress.

    Parameters
    ----------
    cache
        Folder for kernels and package lists.
    jobs
        Compilers, or guests, at a time.
    seconds
        Time for each guest.
    """

    cache: Path
    jobs: int
    seconds: float
    progress: Progress = field(repr=False)

    async def run(self) -> KernelsRecord:
        """Do everything, and return what was found."""
        require(QEMU, "setpriv")
        images.sweep(self.cache)
        kernels, busybox = await self._prepare()
        task = self._task("choose the accelerator")
        machine = Machine(busybox, await working_accelerator(kernels[0], busybox))
        self._done(task, machine.accelerator)
        model = self._model()
        free = asyncio.Semaphore(self.jobs)
        found = await _all(
            self._measure(machine, kernel, model, self._task(kernel.origin), free)
            for kernel in kernels
        )
        return KernelsRecord(
            date=datetime.now(timezone.utc).date().isoformat(),
            command=COMMAND,
            accelerator=machine.accelerator,
            openvino=metadata.version("openvino") if model else None,
            change=LENGTH_CONDITION,
            kernels=tuple(entry for entries in found for entry in entries),
        )

    async def _prepare(self) -> tuple[list[Kernel], Path]:
        task = self._task("package lists")
        archive = await Archive.open(self.cache / "apt")
        self._done(task)
        kernels = []
        for version in images.STOCK_VERSIONS:
            task = self._task(f"stock kernel {version.rstrip('.') or 'newest'}")
            kernels.append(await images.stock(archive, version, self.cache))
            self._done(task)
        task = self._task("two kernels from one source")
        kernels += await images.built(
            archive, self.cache, self.jobs, lambda doing: self._doing(task, doing)
        )
        self._done(task)
        return kernels, await images.busybox(archive, self.cache)

    def _model(self) -> Path | None:
        """Return the model for OpenVINO, built where it is not there yet."""
        if importlib.util.find_spec("openvino") is None:
            model: Path | NotObservable = NotObservable("the package openvino is not installed")
        else:
            model = workloads.find(WORKLOAD).model_path(self.cache / "models")
        if isinstance(model, NotObservable):
            self.progress.console.print(f"Without inference, because {model.reason}.", markup=False)
            return None
        return model

    async def _measure(
        self,
        machine: Machine,
        kernel: Kernel,
        model: Path | None,
        task: TaskID,
        free: asyncio.Semaphore,
    ) -> tuple[KernelUnderSetting, ...]:
        command = (sys.executable, "-m", guest.__name__, str(model or "--no-model"))
        env = {
            "PYTHONPATH": str(_PACKAGE_PARENT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
        }
        collector = Collector(kernel)
        async with free, aclosing(machine.lines(kernel, command, self.seconds, env)) as lines:
            self.progress.reset(task)
            async for told in lines:
                collector.add(told)
                if told["about"] == "kernel":
                    total = guest.results(told["mthp_sizes"], with_model=model is not None)
                    self.progress.update(task, total=total, description=f"run {told['release']}")
                elif told["about"] != "setting":
                    self.progress.advance(task)
        self._done(task)
        return collector.finished()

    def _task(self, description: str) -> TaskID:
        return self.progress.add_task(description, total=None)

    def _doing(self, task: TaskID, doing: str) -> None:
        name = self.progress.tasks[task].description.partition(":")[0]
        self.progress.update(task, description=f"{name}: {doing}")

    def _done(self, task: TaskID, how: str = "done") -> None:
        self._doing(task, how)
        self.progress.update(task, total=1, completed=1)
        if not self.progress.console.is_terminal:  # bars move on a terminal only
            self.progress.console.print(self.progress.tasks[task].description, markup=False)


async def _all(works: Iterator[Coroutine[None, None, _T]]) -> list[_T]:
    """Run everything at once; should one fail, cancel the others and wait until they are gone."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Make sure that no other run uses the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ProbeError(
                "The kernel laboratory was started, but another run uses the same cache folder. "
                "Wait until it has ended, or name another folder with --cache."
            ) from None
        yield


async def _interruptible(laboratory: Laboratory) -> KernelsRecord:
    """Run, and end every guest and compiler on Ctrl-C and on SIGTERM, which nox sends."""
    task = asyncio.ensure_future(laboratory.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    return await task


def _show(record: KernelsRecord, console: Console) -> None:
    """Print what the central table of the guide says, for each kernel: THP always, nothing else."""
    plain = [each for each in record.kernels if each.thp_mode == "always" and not each.mthp]
    table = Table(title="Share of touched memory that is huge", title_justify="left")
    table.add_column("16 mappings of")
    table.add_column("touched")
    for each in plain:
        table.add_column(f"{each.release}\n{each.rule.value if each.rule else 'no known rule'}")
    for row in zip(*(each.layouts for each in plain), strict=True):
        first = row[0]
        if not first.top_offset:
            lengths = " and ".join(str(length) for length in dict.fromkeys(first.lengths))
            shares = (f"{each.layout.coverage:.0%}" for each in row)
            table.add_row(f"{lengths} KiB", first.touch.value, *shares)
    console.print(table)


def main(
    cache: Annotated[
        Path | None, typer.Option(help="Folder for kernels and package lists.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Compilers, or guests, at a time.")] = 0,
    seconds: Annotated[float, typer.Option(help="Time for each guest.")] = _GUEST_SECONDS,
    output: Annotated[Path, typer.Option(help="The record to write.")] = RECORD,
) -> None:
    """Run the probes on Debian's stock kernels and on one built twice, under QEMU.

    Nothing is installed, and no privilege is needed. What is fetched and built stays in the cache
    folder, so that the next run takes minutes, and one that was interrupted goes on.
    """
    console = Console(stderr=True)
    folder = (cache or images.default_cache()).resolve()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    try:
        with _alone(folder), Progress(*columns, console=console) as progress:
            laboratory = Laboratory(folder, jobs or os.cpu_count() or 1, seconds, progress)
            record = asyncio.run(_interruptible(laboratory))
    except ProbeError as error:
        console.print(f"hugeprobe.kernels: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except asyncio.CancelledError:
        console.print("Interrupted; the next run goes on from here.")
        raise typer.Exit(130) from None
    records.write(output, record)
    _show(record, Console())


if __name__ == "__main__":
    typer.run(main)
