"""The quickstart on a quiet machine and beside busy processes, one for each core, one after the other.

    python tests/benchmarks/busy_machine.py OUT [--all-threads]

With `--all-threads` the busy run computes with a thread for each core, as without the choice of `detr_ft/utils/threads.py`; it
is ended after twenty times the quiet time. Status 1 where the busy run takes more than five times as long.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tables import Tables, parser_of

_BAR, _GIVEN_UP = 5.0, 20.0


def seconds_of(folder: Path, limit: float | None, **environment: str) -> float | None:
    """The duration of the quickstart; None if it reached the limit."""
    command = [sys.executable, "-W", "ignore", "-m", "detr_ft", "quickstart", "--output-dir", str(folder)]
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }
    began = time.monotonic()
    with folder.with_suffix(".log").open("wb") as output:
        try:
            subprocess.run(
                command, env=inherited | environment, stdout=output, stderr=output, check=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return None
    return time.monotonic() - began


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--all-threads", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    tables = Tables(options.json)
    tables.begin({"the quickstart": "", "seconds": ".0f", "times the quiet one": ".2f"})
    quiet = seconds_of(options.out / "quiet", None)
    assert quiet is not None
    tables.row("quiet", quiet, 1.0)
    cores = os.cpu_count() or 1
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        time.sleep(1)
        chosen = {"OMP_NUM_THREADS": str(cores)} if options.all_threads else {}
        busy = seconds_of(options.out / "busy", _GIVEN_UP * quiet, **chosen)
    finally:
        for other in others:
            other.kill()
    tables.row(f"beside {cores} busy processes", busy, busy and busy / quiet)
    return int(busy is None or busy > _BAR * quiet)


if __name__ == "__main__":
    raise SystemExit(main())
