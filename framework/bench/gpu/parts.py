"""The parts of the GPU benchmark, in the order in which they run: what is most needed comes first."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part, run by a process of its own.

    Attributes:
        name: in the results.
        title: what it measures.
        function: `module:function` of this package; it is given a `Session`.
        seconds: its time limit, in a benchmark of nine minutes; parts that end early leave their time to the last.
    """

    name: str
    title: str
    function: str
    seconds: float


def _part(name: str, function: str, seconds: float, title: str) -> Part:
    """A row of the table.

    Args:
        name: in the results.
        function: module and function.
        seconds: time limit.
        title: what it measures.
    """
    return Part(name=name, title=title, function=f"framework.bench.gpu.{function}", seconds=seconds)


PARTS = (
    _part("tests", "first_light:run_tests", 45, "the tests of PRA that need a GPU"),
    _part("strategies", "first_light:train_strategies", 50, "a few steps under every strategy"),
    _part("agents", "agents:train_and_attribute", 40, "GBC: soft prompts, adapters, attribution"),
    _part("waits", "waits:count_waits", 25, "synchronisations of a training step; the loop against a bare one"),
    _part("step", "step:measure_steps", 130, "PRA-L's training step"),
    _part("saves", "saves:save_twice", 25, "asynchronous saves"),
    _part("sampling", "sampling:measure_sampling", 60, "PRA-L's sampling"),
    _part("passes", "passes:measure_passes", 75, "attribution and episodes on language models"),
    _part("finegrained", "passes:measure_finegrained", 25, "peaks of `finegrained`"),
    _part("cifar", "cifar:compare_rows", 65, "CIFAR-10 at 32x32: pra and teacher_forced at equal time"),
)
"""The last one gets all the time that is left."""
NINE_MINUTES = 540.0


def named_part(name: str) -> Part:
    """The part of a name of the table."""
    return next(part for part in PARTS if part.name == name)
