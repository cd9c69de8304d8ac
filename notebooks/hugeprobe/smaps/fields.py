"""The lines of a record in smaps: their labels there, and the names of their values here."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

Pid: TypeAlias = int | Literal["self"]

FIELDS: Final = {
    b"Size": "size_kib",
    b"KernelPageSize": "kernel_page_kib",
    b"MMUPageSize": "mmu_page_kib",
    b"Rss": "rss_kib",
    b"Pss": "pss_kib",
    b"Referenced": "referenced_kib",
    b"Anonymous": "anonymous_kib",
    b"LazyFree": "lazy_free_kib",
    b"AnonHugePages": "anon_huge_kib",
    b"ShmemPmdMapped": "shmem_pmd_kib",
    b"FilePmdMapped": "file_pmd_kib",
    b"Shared_Hugetlb": "shared_hugetlb_kib",
    b"Private_Hugetlb": "private_hugetlb_kib",
    b"Swap": "swap_kib",
    b"Locked": "locked_kib",
    b"THPeligible": "thp_eligible",
}
FLAGS: Final = b"VmFlags:"
NUMBERS: Final = tuple(FIELDS.values())
MISSING: Final = -1
"""Stands in a column for a field that the kernel did not write; no field is negative."""

RANGE: Final = re.compile(rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ")
