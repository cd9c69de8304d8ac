"""What a snapshot is made of: one mapping and its kind, and sums over mappings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from hugeprobe.enums import Words


class Kind(Words):
    """What a mapping is for, as far as its name and its permissions tell."""

    HEAP = "heap"
    """The ``brk`` heap; large chunks and further arenas of glibc are :attr:`ANONYMOUS`."""
    STACK = "stack"
    """The stack of the first thread; those of other threads are :attr:`ANONYMOUS`."""
    ANONYMOUS = "anonymous"
    FILE = "file"
    """Named by a file; one on a tmpfs elsewhere than ``/dev/shm`` is in here, as its name does not
    tell."""
    SHARED = "shared memory"
    """Shared anonymous memory, memfd, System V and POSIX (``/dev/shm``) shared memory."""
    SPECIAL = "special"
    """Mapped by the kernel for itself: vdso, vvar, vsyscall, uprobes."""


class Mapping(NamedTuple):
    r"""One mapping (VMA) of a process; fields that this kernel does not write are None.

    Parameters
    ----------
    start, end
        Addresses; ``end`` is the first that does not belong to it.
    permissions
        Four letters such as ``rw-p``; the last is ``p`` for private, ``s`` for shared.
    offset
        Offset into the file in bytes.
    device, inode
        The file's device as ``major:minor`` in hexadecimal, and its inode; 0 without a file.
    name
        Path or bracketed name, as the kernel writes it: a newline in it is ``\012``.
    size_kib
        Length in KiB, like every other field that ends so.
    rss_kib, pss_kib
        Resident memory, and the same with shared pages divided by the number that share them.
    anonymous_kib
        Resident memory that belongs to no file, also in a file mapping once it was written to.
    anon_huge_kib, shmem_pmd_kib, file_pmd_kib
        Resident memory that a PMD maps: anonymous, shmem, page cache. Smaller huge pages (mTHP) are
        not in it and appear in no field.
    shared_hugetlb_kib, private_hugetlb_kib
        hugetlbfs pages, which ``rss_kib`` leaves out.
    swap_kib, locked_kib, referenced_kib, lazy_free_kib
        Swapped out; locked; marked as accessed; given up by ``MADV_FREE`` but not taken yet.
    kernel_page_kib, mmu_page_kib
        Page size of the mapping; it differs from the base page for hugetlbfs only, never for THP.
    thp_eligible
        Whether a huge page of any enabled size fits into the mapping and settings permit it.
    vm_flags
        Two-letter flags; ``hg`` is advised for, ``nh`` against huge pages.
    kind
        What it is for.
    """

    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int
    name: str
    kind: Kind
    size_kib: int | None
    kernel_page_kib: int | None
    mmu_page_kib: int | None
    rss_kib: int | None
    pss_kib: int | None
    referenced_kib: int | None
    anonymous_kib: int | None
    lazy_free_kib: int | None
    anon_huge_kib: int | None
    shmem_pmd_kib: int | None
    file_pmd_kib: int | None
    shared_hugetlb_kib: int | None
    private_hugetlb_kib: int | None
    swap_kib: int | None
    locked_kib: int | None
    thp_eligible: bool | None
    vm_flags: tuple[str, ...]

    @property
    def huge_kib(self) -> int:
        """Resident memory in KiB that a PMD maps, of every sort but hugetlbfs."""
        return (self.anon_huge_kib or 0) + (self.shmem_pmd_kib or 0) + (self.file_pmd_kib or 0)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, for JSON."""
        return self._asdict()


@dataclass(frozen=True, slots=True)
class Rollup:
    """Sums over mappings in KiB; a field that the kernel does not write adds nothing.

    Kernels without ``ShmemPmdMapped`` (before 4.8) or ``FilePmdMapped`` (before 5.4) map no such
    memory by PMD, so that the sum is right for them, too.
    """

    mappings: int
    size_kib: int
    rss_kib: int
    anonymous_kib: int
    anon_huge_kib: int
    shmem_pmd_kib: int
    file_pmd_kib: int
    swap_kib: int

    @property
    def huge_kib(self) -> int:
        """Resident memory in KiB that a PMD maps, of every sort but hugetlbfs."""
        return self.anon_huge_kib + self.shmem_pmd_kib + self.file_pmd_kib


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds, in KiB: resident, of that anonymous, and of that mapped by PMDs."""

    rss_kib: int
    anonymous_kib: int
    anon_huge_kib: int
