"""One snapshot of a process's memory, from ``/proc/PID/smaps``.

The kernel needs microseconds to describe a mapping, and a line-by-line parser in Python needs
several times that. The text is therefore read in columns: every record of one kernel has the same
lines, so the ends of all lines form a table, and each field is one column of it, converted at once.
Text that is not regular in this way is read line by line, with the same result.

Sources: ``fs/proc/task_mmu.c``, ``Documentation/filesystems/proc.rst`` and ``proc_pid_smaps(5)``.
A snapshot of a running process is not atomic: the kernel drops its lock every few mappings.

=============  ==================================================
``reading``    from a process, or a text, to a snapshot
``snapshots``  the mappings as they were read, and sums over them
``mapping``    one mapping and its kind, and what sums consist of
``errors``     why there is no memory map to read
``fields``     the lines of a record
``headers``    its first line
``records``    all records of a text, as columns
``columns``    parsing regular text, by columns
``words``      the same for numbers, as machine words
``lines``      parsing any text, line by line
=============  ==================================================
"""

from hugeprobe.smaps.errors import NoSmapsError, explain_missing
from hugeprobe.smaps.fields import MISSING, Pid
from hugeprobe.smaps.mapping import Held, Kind, Mapping, Rollup
from hugeprobe.smaps.reading import held, parse, read, snapshot
from hugeprobe.smaps.snapshots import Snapshot

__all__ = [
    "MISSING",
    "Held",
    "Kind",
    "Mapping",
    "NoSmapsError",
    "Pid",
    "Rollup",
    "Snapshot",
    "explain_missing",
    "held",
    "parse",
    "read",
    "snapshot",
]
