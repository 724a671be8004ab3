"""``python -m tests.sim [--seed N] [table …]``: print how policies compare, from simulations in virtual time."""

from __future__ import annotations

import argparse

from tests.sim.tables import TABLES

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument(
        "tables", nargs="*", metavar="table", help=f"one of {', '.join(TABLES)}; all when none is named"
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed, other chances")
    arguments = parser.parse_args()
    if unknown := set(arguments.tables) - set(TABLES):
        parser.error(f"no table {', '.join(sorted(unknown))}")
    print(
        "10 servers of 4 workers, service times exponential (10 ms), Poisson arrivals, callers wait for 1 s", flush=True
    )
    for name in arguments.tables or TABLES:
        for line in TABLES[name].lines(arguments.seed):
            print(line, flush=True)
