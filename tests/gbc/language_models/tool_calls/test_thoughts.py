"""Where thoughts begin and end."""

import time

from framework.gbc.language_models.tool_calls.thoughts import begun_thought, thought_at, without_thoughts


def test_a_thought_goes_on_past_one_within_it():
    text = "<think>a<think>b</think>c</think>said"
    assert thought_at(text, 0) == (0, text.index("said"))


def test_a_thought_that_the_template_began():
    assert begun_thought("hm</think>said") == len("hm</think>")
    assert begun_thought("said<think>hm</think>") == 0
    assert begun_thought('{"x": "</think>"}') == 0


def test_many_marks_take_no_time():
    start = time.process_time()
    assert without_thoughts("</think>" * 3000 + "said") == "said"
    assert without_thoughts("[" * 3000 + "</think>said") == "said"
    assert time.process_time() - start < 2
