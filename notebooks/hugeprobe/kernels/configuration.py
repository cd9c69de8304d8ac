"""The one configuration that both built kernels share: as small as running the probes allows.

Everything not named here is off, so that a build takes minutes: no modules, no disks, no devices
but serial ports and the shared folder, no network beyond the sockets programs take for granted.
"""

from __future__ import annotations

from typing import Final

from hugeprobe.errors import ProbeError

_GROUPS: Final = {
    "a 64-bit machine under QEMU, which ends when it reboots": (
        *("64BIT", "SMP", "HYPERVISOR_GUEST", "PARAVIRT", "KVM_GUEST", "HIGH_RES_TIMERS"),
        *("ACPI", "PCI", "VIRTIO_MENU", "VIRTIO_PCI", "EXPERT"),
    ),
    "the console, the channel for results, and the first programs": (
        *("PRINTK", "TTY", "SERIAL_8250", "SERIAL_8250_CONSOLE", "BLK_DEV_INITRD"),
        *("BINFMT_ELF", "BINFMT_SCRIPT", "DEVTMPFS", "TMPFS", "SHMEM"),
    ),
    "the host's files": (
        *("NET", "UNIX", "INET", "NETWORK_FILESYSTEMS"),
        *("NET_9P", "NET_9P_VIRTIO", "9P_FS"),
    ),
    "what glibc, Python and OpenVINO call": (
        *("MULTIUSER", "FUTEX", "EPOLL", "SIGNALFD", "TIMERFD", "EVENTFD", "POSIX_TIMERS", "AIO"),
        *("ADVISE_SYSCALLS", "MEMBARRIER", "RSEQ", "SYSVIPC", "FILE_LOCKING", "FHANDLE"),
        *("NUMA", "ACPI_NUMA", "X86_64_ACPI_NUMA", "UNIX98_PTYS"),
    ),
    "what is measured": (
        *("PROC_FS", "PROC_SYSCTL", "PROC_PAGE_MONITOR", "SYSFS", "VM_EVENT_COUNTERS"),
        *("TRANSPARENT_HUGEPAGE", "TRANSPARENT_HUGEPAGE_MADVISE", "COMPACTION", "MIGRATION"),
    ),
}

FRAGMENT: Final = "".join(f"CONFIG_{name}=y\n" for group in _GROUPS.values() for name in group)
"""What ``make allnoconfig`` is told to switch on."""


def check(config: str) -> None:
    """Raise :class:`ProbeError` unless ``config`` has everything of :data:`FRAGMENT`.

    The kernel's own tool drops without a word what depends on something that is off.
    """
    missing = sorted(set(FRAGMENT.splitlines()) - set(config.splitlines()))
    if missing:
        raise ProbeError(
            f"The kernel was to be configured with {', '.join(missing)}, but its configuration "
            "tool left that out, because something it depends on is off in this version. Add "
            "what is missing to hugeprobe/kernels/configuration.py."
        )
