"""Which memory of a Linux process is backed by huge pages, why, and whether it matters."""

__version__ = "0.1.0"
