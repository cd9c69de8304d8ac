"""The kernel laboratory: the same probes on real kernels that differ in one line.

``python -m hugeprobe.kernels`` fetches Debian's stock kernels, builds one from source twice, boots
each under QEMU with this machine's files read-only, runs the probes inside, and writes what they
found to ``records/kernels.json``. Nothing is installed, no privilege is needed, and the host's own
settings are neither read nor written.

======================  ===========================================================
:mod:`.processes`       run other programs, and leave none of them behind
:mod:`.archive`         packages from Debian's archive, by a private apt state
:mod:`.change`          the one line in which two of the kernels differ
:mod:`.images`          kernels on disk: stock ones unpacked, the other two built
:mod:`.machine`         one guest under QEMU
:mod:`.guest`           what runs inside, and the settings it goes through
:mod:`.recipe`          a recipe for operators, pasted inside
:mod:`.inference`       what one process of OpenVINO comes to inside
:mod:`.record`          what was found, as it is recorded and read back
:mod:`.symbols`         what stock kernels were built with
:mod:`.deployment`      settings to copy, tried on stock kernels, and their record
:mod:`.deployed`        what runs inside for that
======================  ===========================================================
"""
