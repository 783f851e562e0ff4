"""Who is named, and whether that is right."""

from framework.gbc.environments.planted_faults import Cost, hit


def test_ties_count_by_the_share_of_culprits():
    assert hit({"a": 1.0, "b": 0.5}, ["a", "b", "c"], ["a"]) == 1.0
    assert hit({"a": 1.0, "b": 1.0}, ["a", "b", "c"], ["a"]) == 0.5
    assert hit({}, ["a", "b", "c", "d"], ["a"]) == 0.25
    assert hit({"a": 1.0, "b": 1.0}, ["a", "b"], ["a", "b"]) == 1.0
    assert hit({"x": 9.0, "a": 1.0}, ["a", "b"], ["b"]) == 0.0


def test_costs_add_up():
    both = Cost(answers=1, tokens=3, seconds=0.5) + Cost(passes=2, tokens=4)
    assert both == Cost(answers=1, passes=2, tokens=7, seconds=0.5)
