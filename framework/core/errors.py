"""Errors a user can act on: each names the value at fault and gives a hint that says the way out.

The command line prints such an error as one line and ends with its `exit_code`; anything else is a bug and keeps its
traceback.
"""

from functools import partial


class FrameworkError(Exception):
    """A problem whose cause lies outside the code.

    Args:
        problem: what is wrong, with the value at fault, without a full stop.
        hint: what to do about it, without a full stop.
    """

    exit_code = 2

    def __init__(self, problem: str, *, hint: str) -> None:
        super().__init__(f"{problem}: {hint}")
        self.problem = problem
        self.hint = hint

    # Exceptions are pickled with their positional arguments alone. One that cannot be made again on the other side
    # ends the thread of a multiprocessing.Pool that reads results, and its user waits for ever.
    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), hint=self.hint), (self.problem,), self.__dict__


class ConfigError(FrameworkError):
    """A recipe, option or argument that cannot be used."""


class DataError(FrameworkError):
    """Images, shards or samples that cannot be used."""


class CheckpointError(FrameworkError):
    """A checkpoint that is missing, damaged or made by another model."""


class TrainingError(FrameworkError):
    """A run that cannot go on, such as one whose loss is not a number."""

    exit_code = 1


class Preempted(FrameworkError):
    """A run that a signal stopped after it had saved itself: started again, it goes on where it was."""

    # EX_TEMPFAIL of sysexits.h: "try again". Never 0, which would say that the run is finished.
    exit_code = 75


class Interrupted(FrameworkError):
    """A run that its user stopped by Ctrl-C after it had saved itself: it goes on when the user says so."""

    # As shells say of a process that SIGINT has ended.
    exit_code = 130
