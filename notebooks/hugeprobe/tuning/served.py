"""The process that ``hugeprobe run`` starts for the trials: OpenVINO, and what backs its memory.

``python -m hugeprobe.tuning.served MODEL`` makes some inferences, and prints what they come to as a
line of JSON, and its anonymous memory in KiB by what backs it as another. It looks at itself,
because it has ended before anybody else would look.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from hugeprobe import host
from hugeprobe.coverage import cover, mode_of
from hugeprobe.kernels.inference import inferred


def main(model: str) -> None:
    """Infer with a model, and print both lines."""
    snapshot, footprint = inferred(model)
    facts = host.host_facts()
    held = cover(snapshot, mode_of(facts), facts.pmd_kib or 2048)
    print(json.dumps(asdict(footprint)))
    print(json.dumps({backing.value: kib for backing, kib in held.kib.items()}))


if __name__ == "__main__":
    main(sys.argv[1])
