"""Command line of the side-by-side benchmark: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from benchmarks import certificates, load, report
from benchmarks.processes import pick_cores
from benchmarks.proxies import NAMES, PROXIES
from benchmarks.rounds import Settings, run_mode, say


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Seawall beside nginx, HAProxy and Envoy in front of one upstream."
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round of one second: does it work, not how fast is it"
    )
    parser.add_argument("--only", metavar="NAMES", help=f"comma-separated, of: {', '.join(NAMES)} (direct always runs)")
    parser.add_argument("--rounds", type=int, default=None, help="interleaved rounds, at least 3 for a median (3)")
    parser.add_argument("--seconds", type=int, default=None, help="length of one run of wrk (3)")
    parser.add_argument("--no-tls", action="store_true", help="plaintext to the upstream only")
    parser.add_argument(
        "--call", choices=sorted(load.CALLS), default="block-number", help="what is called (block-number)"
    )
    return parser.parse_args()


def settings_from(chosen: argparse.Namespace) -> Settings:
    default = Settings(rounds=1, seconds=1, singles=500) if chosen.quick else Settings()
    return Settings(
        rounds=max(1, chosen.rounds or default.rounds),
        seconds=max(1, chosen.seconds or default.seconds),
        singles=default.singles,
        call=chosen.call,
    )


def main() -> int:
    chosen = parse()
    names = set(chosen.only.split(",")) if chosen.only else set(NAMES)
    if unknown := names - set(NAMES):
        print(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(NAMES)}", file=sys.stderr)
        return 2
    if reason := load.missing():
        print(f"nothing measured: {reason}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children are ended on the way out
    proxies = [proxy for proxy in PROXIES if proxy.name in names]
    settings = settings_from(chosen)
    cores = pick_cores()
    if cores.shared:
        say("only one core: the load and the proxy share it, expect figures that say little")
    os.sched_setaffinity(0, {cores.load})
    modes = [run_mode(False, proxies, cores, settings)]
    if not chosen.no_tls:
        if reason := certificates.missing():
            say(f"TLS not measured: {reason}")
        else:
            modes.append(run_mode(True, proxies, cores, settings))
    for mode in modes:
        print(f"\n{report.render(mode, settings)}", flush=True)
    path = report.save(modes, settings, cores, proxies)
    print(f"\nwritten: benchmarks/results/{path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
