"""Lessons: a function of the seed, right by the rules, of every role."""

from framework.gbc.environments.microworld.rules import answer
from framework.gbc.environments.microworld.training_examples import draw_lessons


def test_lessons():
    lessons = list(draw_lessons("a", 200))
    assert lessons == list(draw_lessons("a", 200))
    assert lessons[:20] != list(draw_lessons("b", 20))
    assert {lesson["role"] for lesson in lessons} == {"manager", "worker", "responder"}
    for lesson in lessons:
        assert answer(lesson["prompt"], lesson["message"]) == lesson["answer"]
