"""Entry point of ``python -m hugeprobe`` and of the installed command ``hugeprobe``."""

from hugeprobe.cli import main

if __name__ == "__main__":
    main()
