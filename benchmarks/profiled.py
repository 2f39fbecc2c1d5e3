"""Runs the gateway with a profiler that another process switches on and off.

    python -m benchmarks.profiled OUT serve CONFIG

SIGUSR1 starts recording, SIGUSR2 stops it and writes OUT. Start-up and warm-up are thus not in the figures, and
neither is waiting: the event loop waits in C, outside of any recorded call.
"""

from __future__ import annotations

import cProfile
import runpy
import signal
import sys
from pathlib import Path


def main() -> None:
    out = Path(sys.argv[1])
    sys.argv = ["gateway", *sys.argv[2:]]
    profiler = cProfile.Profile()

    def stop(*_: object) -> None:
        profiler.disable()
        unfinished = out.with_suffix(".part")
        profiler.dump_stats(unfinished)
        unfinished.rename(out)  # the reader waits for the name to appear

    signal.signal(signal.SIGUSR1, lambda *_: profiler.enable())
    signal.signal(signal.SIGUSR2, stop)
    runpy.run_module("gateway", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
