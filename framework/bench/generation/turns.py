"""Ways to the same result that take turns, so that other work on the machine meets all of them alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from framework.core.console import console


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one run of a way took: seconds by the clock, and of all threads' processor time."""

    seconds: float
    cpu_seconds: float


def timed(work: Callable[[], object], device: torch.device) -> Spent:
    """What work took, to its end on the device."""
    _finish(device)
    started, cpu = time.perf_counter(), time.process_time()
    work()
    _finish(device)
    return Spent(seconds=time.perf_counter() - started, cpu_seconds=time.process_time() - cpu)


def take_turns(ways: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[Spent]]:
    """What each way took in each round, after one that warms up; every run is told in a line.

    Args:
        ways: by their names.
        rounds: that count.
        device: that computes.
    """
    spent: dict[str, list[Spent]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            took = timed(way, device)
            which = f"round {number}" if number else "warm-up"
            console.print(f"{which}: {name}: {took.seconds:.2f} s, {took.cpu_seconds:.2f} of CPU")
            if number:
                spent[name].append(took)
    return spent


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
