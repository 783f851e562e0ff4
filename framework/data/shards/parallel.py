"""A map over threads.

Threads rather than processes: decoding, hashing, reading and writing release the interpreter lock. What holds it takes
at most 0.25 ms an image, against 1 to 5 ms for the decoding, so threads keep some sixteen cores busy; and they start at
once, end with the process, even at a kill -9, and share the opened source.
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from framework.core.process.threads import num_cores, refuse_too_many

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int,
    give_up: Callable[[], None] = lambda: None,
) -> Generator[Result, None, None]:
    """Yields `function(task)` for every task, in the order of the tasks.

    Closing the generator, or an error in a task, cancels the tasks that have not begun and waits for the others.

    Args:
        function: what to do.
        tasks: what to do it with.
        workers: number of threads; 0 means one for each CPU core that this process may use.
        give_up: called before the wait for tasks that have begun, so that they need not go on to their ends.
    """
    refuse_too_many(workers, "workers")
    with ThreadPoolExecutor(workers or num_cores()) as pool:
        try:
            yield from pool.map(function, tasks)
        except BaseException:  # Ctrl-C and the generator's end among them.
            give_up()
            raise
