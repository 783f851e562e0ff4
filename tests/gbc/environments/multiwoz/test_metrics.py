"""Metrics by hand, and summed over processes."""

import pytest
import torch.distributed

from framework.core.errors import DataError
from framework.gbc.environments.multiwoz.metrics import InformSuccess, JointGoalAccuracy, SlotF1, wrong_slots
from framework.gbc.environments.multiwoz.success import Judgement
from framework.testing.processes.forked import run_forked

GOLD = {"hotel-area": "north", "hotel-type": "hotel|guesthouse", "train-day": "friday"}
# One of the alternatives; a wrong day; a taxi that nobody asked for; no area.
WRONG = {"hotel-type": "guest house", "train-day": "monday", "taxi-leaveat": "10:00"}
DOMAINS = ("hotel", "train")


def test_wrong_slots():
    assert wrong_slots(WRONG, GOLD) == {"hotel-area", "train-day", "taxi-leaveat"}
    assert wrong_slots(GOLD, GOLD) == wrong_slots({}, {}) == set()


def test_joint_goal_accuracy():
    metric = JointGoalAccuracy()
    metric.update([WRONG, GOLD], [GOLD, GOLD], [DOMAINS, DOMAINS])
    metric.update([{"hotel-area": "south"}, {}], [{"hotel-area": "north"}, {}], [["hotel", "taxi"], ["train"]])
    assert {name: value.item() for name, value in metric.compute().items()} == {
        "joint_goal_accuracy": 0.5,
        "joint_goal_accuracy/hotel": pytest.approx(1 / 3),
        "joint_goal_accuracy/taxi": 1.0,
        "joint_goal_accuracy/train": pytest.approx(2 / 3),
    }


def test_slots():
    metric = SlotF1()
    metric.update([WRONG, GOLD], [GOLD, GOLD], [DOMAINS, DOMAINS])
    # Found are 1 + 3 of 3 + 3 that were predicted and 3 + 3 that were expected.
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found["slot_precision"] == found["slot_recall"] == found["slot_f1"] == pytest.approx(2 / 3)
    assert (found["slot_precision/hotel"], found["slot_recall/hotel"]) == (1.0, 0.75)
    assert found["slot_f1/hotel"] == pytest.approx(6 / 7)
    assert (found["slot_precision/taxi"], found["slot_recall/taxi"], found["slot_f1/taxi"]) == (0.0, 0.0, 0.0)
    assert found["slot_f1/train"] == 0.5
    assert "slot_f1/restaurant" not in found
    with pytest.raises(DataError, match="'zoo-name' is not a slot"):
        metric.update([{"zoo-name": "x"}], [{}], [[]])


def test_nothing_to_find():
    metric = SlotF1()
    metric.update([{}], [{}], [["hotel"]])
    assert {value.item() for value in metric.compute().values()} == {1.0}
    metric.update([{}], [{"hotel-area": "north"}], [["hotel"]])
    assert metric.compute()["slot_f1"] == metric.compute()["slot_precision"] == 0


JUDGED = [
    Judgement(informed={"hotel": True, "taxi": True}, told={"hotel": True, "taxi": True}),
    Judgement(informed={"hotel": True, "train": False}, told={"hotel": True, "train": True}),
    Judgement(informed={"hotel": True}, told={"hotel": False}),
    Judgement(informed={"train": False}, told={"train": False}),
]
RATES = {
    "inform": 0.5,
    "inform/hotel": 1.0,
    "inform/taxi": 1.0,
    "inform/train": 0.0,
    "success": 0.25,
    "success/hotel": pytest.approx(2 / 3),
    "success/taxi": 1.0,
    "success/train": 0.0,
}


def test_inform_and_success():
    metric = InformSuccess()
    metric.update(JUDGED)
    assert {name: value.item() for name, value in metric.compute().items()} == RATES


def half_of_the_counts() -> dict[str, float]:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    judged, slots = InformSuccess(), SlotF1()
    judged.update(JUDGED[rank::2])
    slots.update([[WRONG], [GOLD]][rank], [GOLD], [DOMAINS])
    found = {name: value.item() for name, value in {**judged.compute(), **slots.compute()}.items()}
    torch.distributed.destroy_process_group()
    return found


@pytest.mark.slow
def test_two_processes_count_together():
    results = run_forked(half_of_the_counts, 2).results
    assert results[0] == results[1]
    assert {name: results[0][name] for name in RATES} == RATES
    assert results[0]["slot_f1"] == pytest.approx(2 / 3)
    assert results[0]["slot_precision/taxi"] == 0  # which only one of them met
