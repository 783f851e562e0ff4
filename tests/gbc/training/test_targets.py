"""Right outputs as texts."""

import pytest

from framework.core.errors import DataError
from framework.gbc.training.targets import expected_slots


def test_slots_as_words():
    assert expected_slots({"id": "t", "expected": {"hotel-area": "north", "hotel-day": "mon"}}) == (
        "hotel-area north hotel-day mon"
    )


@pytest.mark.parametrize("task", [{"id": "t"}, {"id": "t", "expected": {}}, {"id": "t", "expected": "north"}])
def test_a_task_without_slots(task: dict[str, object]):
    with pytest.raises(DataError, match="task 't' has no expected slots"):
        expected_slots(task)
