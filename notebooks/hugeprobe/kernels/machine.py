"""One guest under QEMU: this machine's files read-only, no network, a bounded time.

virtme-ng does the same with more: it starts the host's udev and temporary-file services inside, and
takes KVM where ``/dev/kvm`` opens, which does not mean that it works. All that is needed here is a
program with the host's files around it, so a first program of a few lines is handed over in an
initial file system, and a guest has booted, run Python and ended after 4 s of pure emulation.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from hugeprobe.errors import ProbeError
from hugeprobe.kernels.processes import require, started

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from hugeprobe.kernels.images import Kernel

Accelerator = Literal["kvm", "tcg"]

QEMU: Final = "qemu-system-x86_64"
GUEST_MARK: Final = "hugeprobe.guest"
"""On the guest's kernel command line: what may write to /sys makes sure that it is there."""

_COMMAND_LINE: Final = f"console=ttyS0 panic=-1 reboot=t quiet {GUEST_MARK}"
_MEMORY_MIB: Final = 1536
_TRIAL_SECONDS: Final = 15.0
_STATUS: Final = "status"

_INIT: Final = """\
#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t devtmpfs devices /dev
exec > /dev/ttyS0 2>&1
for module in /modules/*.ko; do
    [ -e "$module" ] && $bb insmod "$module"
done
$bb mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=524288 host /host
$bb mount -t proc proc /host/proc
$bb mount -t sysfs sysfs /host/sys
$bb mount -t devtmpfs devices /host/dev
$bb mkdir -p /host/dev/shm
$bb mount -t tmpfs shared /host/dev/shm
$bb stty -F /dev/ttyS1 raw
$bb timeout -s KILL {seconds} $bb chroot /host {command} \\
    < /dev/null > /dev/ttyS1
echo "{{\\"{status}\\": $?}}" > /dev/ttyS1
$bb reboot -f
"""
"""The first program. Only folders that the kernel provides are writable, so nothing of the host's
is hidden and no file of it can change; rebooting ends QEMU."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How guests are run.

    Parameters
    ----------
    busybox
        A static busybox on this machine.
    accelerator
        KVM, or QEMU's own emulation.
    parameters
        Words for the kernel's command line, as a boot loader hands them over.
    nodes
        Memory nodes, of equal size; the processor is on the first.
    """

    busybox: Path
    accelerator: Accelerator = "tcg"
    parameters: tuple[str, ...] = ()
    nodes: int = 1

    async def lines(
        self,
        kernel: Kernel,
        command: Sequence[str],
        seconds: float,
        env: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Boot ``kernel``, run ``command`` inside, and yield each JSON object it prints as a line.

        Parameters
        ----------
        kernel
            What to boot.
        command
            Program of this machine and its arguments; it runs as the guest's root.
        seconds
            Time for everything.
        env
            Its environment, besides a ``PATH`` and a folder for temporary files.

        Raises
        ------
        ProbeError
            If there is no QEMU, the guest did not boot or finish in time, or the command failed;
            with the last words of the guest's console.
        """
        require(QEMU, "setpriv")
        variables = {
            "PATH": "/usr/bin:/bin",
            "HOME": "/dev/shm",
            "TMPDIR": "/dev/shm",
            "LC_ALL": "C.UTF-8",
            **(env or {}),
        }
        words = ["/usr/bin/env", "-i", *(f"{k}={v}" for k, v in variables.items()), *command]
        init = _INIT.format(command=shlex.join(words), seconds=round(seconds), status=_STATUS)
        with tempfile.TemporaryDirectory(prefix="hugeprobe-") as temporary:
            console = Path(temporary) / "console"
            first_files = Path(temporary) / "initramfs"
            first_files.write_bytes(initramfs(init, self.busybox, kernel.modules))
            qemu = self._command(kernel, first_files, console)
            loop = asyncio.get_running_loop()
            ends = loop.time() + seconds
            status = None
            async with started(qemu) as process:
                assert process.stdout is not None
                while status is None:
                    try:
                        line = await asyncio.wait_for(process.stdout.readline(), ends - loop.time())
                    except asyncio.TimeoutError:
                        raise _failure(
                            kernel, f"did not finish in {seconds:.0f} s", console
                        ) from None
                    if not line:
                        break
                    told = _told(line, console)
                    status = told.get(_STATUS)
                    if status is None and told:
                        yield told
            if status is None:
                raise _failure(kernel, "ended before its program did", console)
            if status:
                raise _failure(kernel, f"ran a program that failed with status {status}", console)

    def _command(self, kernel: Kernel, first_files: Path, console: Path) -> list[str | Path]:
        shared = "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"
        return [
            QEMU,
            *("-machine", "q35", "-accel", self.accelerator, "-cpu", "max"),
            # One processor: counts repeat, and guests run beside each other.
            *("-smp", "1", "-m", f"{_MEMORY_MIB}M"),
            *self._memory_nodes(),
            *("-nodefaults", "-no-user-config", "-nic", "none", "-display", "none", "-no-reboot"),
            *("-kernel", kernel.image, "-initrd", first_files),
            *("-append", " ".join((_COMMAND_LINE, *self.parameters))),
            *("-serial", f"file:{console}", "-serial", "stdio"),
            *("-virtfs", shared),
        ]

    def _memory_nodes(self) -> list[str]:
        """Say what memory is on which node; one node needs no saying."""
        words = []
        for node in range(self.nodes if self.nodes > 1 else 0):
            size = f"{_MEMORY_MIB // self.nodes}M"
            words += ["-object", f"memory-backend-ram,id=memory{node},size={size}"]
            processor = ",cpus=0" if node == 0 else ""
            words += ["-numa", f"node,memdev=memory{node}{processor}"]
        return words


async def working_accelerator(kernel: Kernel, busybox: Path) -> Accelerator:
    """Return ``kvm`` if a guest really boots with it, else ``tcg``.

    In a virtual machine ``/dev/kvm`` may open, and a guest then stop at its first instructions.
    """
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        machine = Machine(busybox, "kvm")
        with suppress(ProbeError):
            async for _ in machine.lines(kernel, ("/usr/bin/env", "true"), _TRIAL_SECONDS):
                pass
            return "kvm"
    return "tcg"


def initramfs(init: str, busybox: Path, modules: Sequence[Path]) -> bytes:
    """Return a guest's first files, in the form that the kernel unpacks.

    The format is ``newc``, described in ``Documentation/driver-api/early-userspace/
    buffer-format.rst`` of the kernel; the folder ``host`` is where its files appear.
    """
    files = {
        "init": init.encode(),
        "bin/busybox": busybox.read_bytes(),
        **{f"modules/{module.name}": module.read_bytes() for module in modules},
    }
    folders = ("bin", "dev", "modules", "host")
    entries = [_newc(folder, 0o040755, b"") for folder in folders]
    entries += [_newc(name, 0o100755, content) for name, content in files.items()]
    return b"".join((*entries, _newc("TRAILER!!!", 0, b"")))


def _newc(name: str, mode: int, content: bytes) -> bytes:
    path = name.encode() + b"\0"
    #        inode, mode, owner, group, links, time, size, four device numbers, name, checksum
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + path
    return _padded(header) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)


def _told(line: bytes, console: Path) -> dict[str, Any]:
    """Read a line of the channel; QEMU's own messages arrive there, too, and join the console's."""
    with suppress(ValueError):
        told = json.loads(line)
        if isinstance(told, dict):
            return told
    with console.open("ab") as log:
        log.write(line)
    return {}


def _failure(kernel: Kernel, what: str, console: Path) -> ProbeError:
    text = console.read_text(errors="replace") if console.exists() else ""
    last = "\n".join(text.strip().splitlines()[-8:]) or "nothing"
    return ProbeError(
        f"A guest with {kernel.origin} {what}. The last words on its console:\n{last}"
    )
