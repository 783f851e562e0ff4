"""Right outputs as texts, for the loss that flows."""

from collections.abc import Mapping
from typing import cast

from framework.core.errors import DataError
from framework.gbc.execution.runner import Task


def expected_slots(task: Task) -> str:
    """The slots of `expected` as words, `hotel-area north hotel-day mon`: what the micro world's responder says.

    Raises:
        DataError: no slots.
    """
    slots = task.get("expected")
    if not isinstance(slots, Mapping) or not slots:
        raise DataError(f"task {task.get('id')!r} has no expected slots", hint="give each task its slots")
    return " ".join(f"{name} {value}" for name, value in cast("Task", slots).items())
