"""What wrong tokens should have been."""

import re
from dataclasses import replace

import pytest

from framework.gbc.environments.microworld.tokenizer import make_tokenizer
from framework.gbc.graph import Agent, Graph
from framework.gbc.models import LocalModel
from framework.gbc.rivals import Correction, find_rivals
from framework.gbc.run import RunOptions, run_graph
from framework.testing.language_models import tiny_language_model, tiny_local_model


@pytest.fixture(scope="module")
def model():
    return tiny_local_model()


@pytest.fixture(scope="module")
def trace(model):
    graph = Graph(agents=(Agent(name="b", prompt="Be brief.", model="m", reads=("user",), max_new_tokens=4),))
    return next(run_graph(graph, {"m": model}, [{"user": "a cheap hotel"}], options=RunOptions(on_empty="keep")))


def test_rivals_stand_where_the_right_text_begins_to_differ(model, trace):
    step = trace.step("b")
    token = next(i for i, (start, stop) in enumerate(step.output_spans) if stop > start)
    start, stop = step.output_spans[token]
    wrong = step.output[start:stop]
    before, after = step.output[:start], step.output[stop:]
    rivals = find_rivals(model, step, [Correction(wrong=wrong, right="zzz", before=before, after=after)])
    retokenized = model.tokenizer(step.output[:start] + "zzz", add_special_tokens=False)["input_ids"]
    if retokenized[:token] == list(step.output_ids[:token]):
        assert rivals[token] == retokenized[token] != step.output_ids[token]
    assert len(rivals) == len(step.output_ids)
    assert set(find_rivals(model, step, [Correction(wrong="not there", right="x")])) == {-1}
    assert set(find_rivals(model, step, [Correction(wrong=wrong, right=wrong)])) == {-1}


def test_corrections_of_one_text_are_told_apart_by_the_words_before_them(trace):
    model = LocalModel(tiny_language_model(vocabulary=200), make_tokenizer())
    said = "taxi-area none train-day none nothing taxi-day none"
    ids = model.tokenizer(said)["input_ids"]
    spans = tuple(match.span() for match in re.finditer(r"\S+", said))
    step = replace(trace.step("b"), output=said, output_ids=tuple(ids), output_spans=spans)
    corrections = [
        Correction(wrong="none", right="north", before="go taxi-area "),
        Correction(wrong="none", right="friday", before="taxi-area none train-day "),
        # In no other word.
        Correction(wrong="no", right="monday"),
    ]
    rivals = find_rivals(model, step, corrections)
    words = [model.decode([rival]) if rival >= 0 else "" for rival in rivals]
    # The last one is nobody's.
    assert words == ["", "north", "", "friday", "", "", ""]
