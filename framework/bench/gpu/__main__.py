"""The command `python -m framework.bench.gpu`.

Needs no make, no network and no environment of its own: it runs in the one that it finds. A part that a package is
missing for says so, and the others run.
"""

import argparse
import signal
import sys
from importlib import import_module
from pathlib import Path

import torch

from framework.bench.gpu.runner import PARTS, Options, named_part, run_parts

_DESCRIPTION = """Measure one GPU: tests, strategies, synchronisations, training steps, saves, sampling, attribution,
and a short training. Every part runs in a process of its own with a time limit. Figures go to OUT/results.jsonl as they
come, what the parts print to OUT/PART.log, and a table to OUT/table.md at the end."""


def main(arguments: list[str] | None = None) -> int:
    """Runs all parts, or as the process of one of them that one; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m framework.bench.gpu", description=_DESCRIPTION)
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything together (9)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes; also on a CPU: does everything run?")
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", nargs="+", choices=names, default=[], metavar="PART", help=", ".join(names))
    parser.add_argument("--part", choices=names, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        return _run_part(options.part, options.out, rehearse=options.rehearse)
    if options.minutes <= 0:
        parser.error(f"--minutes {options.minutes}: give more than 0")
    if not options.rehearse and not torch.cuda.is_available():
        parser.error("there is no GPU here: with --rehearse all parts run in tiny sizes on a CPU")
    # Parts have sessions of their own, and end with this process only if it is told.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    from framework.bench.gpu.table import save_table

    chosen = Options(minutes=options.minutes, folder=options.out, rehearse=options.rehearse, parts=tuple(options.parts))
    try:
        run_parts(chosen)
    finally:
        print(save_table(options.out))
    return 0


def _run_part(name: str, folder: Path, *, rehearse: bool) -> int:
    """The process of a part: imports, waits for its turn, measures."""
    part = named_part(name)
    try:
        from framework.bench.gpu.session import Session

        module, _, function_name = part.function.partition(":")
        function = getattr(import_module(module), function_name)
    except ImportError as error:
        print(f"needs a package: {error}")
        # Nobody reads before the turn has come.
        sys.stdin.readline()
        return 1
    seconds = sys.stdin.readline()
    if not seconds:
        # Whoever started it is gone.
        return 1
    function(Session(part=name, folder=folder, rehearse=rehearse, seconds=float(seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
