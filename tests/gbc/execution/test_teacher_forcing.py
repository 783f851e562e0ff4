"""Batches of teacher-forced answers: what goes into a pass, and what of an answer is read in every task."""

import pytest
import torch

from framework.core.errors import DataError
from framework.gbc.attribution.options import GradientOptions
from framework.gbc.attribution.token_gradients import token_scores
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.execution.teacher_forcing import TokenRow, first_message, forward_rows
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.language_models import logits
from framework.testing.fake_memory import fake_peak
from framework.testing.language_models import tiny_language_model, tiny_local_model


def tokens(count: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(4, 97, (count,), generator=generator).tolist())


@pytest.mark.parametrize(("most", "largest"), [(1, 6), (24, 18), (1000, 48)])
def test_passes_are_as_large_as_is_allowed_and_no_larger(most: int, largest: int):
    model = tiny_language_model(vocabulary=97)
    rows = [TokenRow(input_ids=tokens(4, n), prefix=0, output_ids=tokens(3, n + 9)) for n in range(8)]
    seen: list[int] = []
    model.register_forward_hook(
        lambda module, args, kwargs, out: seen.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    token_scores(model, rows, GradientOptions(scalar="sum_squares", max_tokens=most))
    # Rows of seven tokens, of which the model reads six: the last one has nothing after it.
    assert max(seen) == largest
    assert sum(seen) == 48


@pytest.mark.parametrize(("prefix", "outputs"), [(3, (1,)), (-1, (1,)), (0, ())])
def test_rows_that_cannot_be_scored(prefix: int, outputs: tuple[int, ...]):
    with pytest.raises(DataError, match="input tokens"):
        TokenRow(input_ids=(1, 2, 3), prefix=prefix, output_ids=outputs)


def test_a_row_of_a_step_begins_after_what_its_agent_always_reads():
    model = tiny_local_model()
    agents = (
        Agent(name="a", prompt="Say.", model="m", reads=("user",), max_new_tokens=3),
        Agent(name="b", prompt="Write.", model="m", reads=("user", "a"), template="{a}, {user}", max_new_tokens=3),
    )
    tasks = [{"user": text} for text in ("north", "a cheap hotel")]
    traces = list(run_graph(Graph(agents=agents), {"m": model}, tasks, options=RunOptions(on_empty="keep")))
    for name in "ab":
        rows = [
            TokenRow.of(model, trace.step(name), prefix=first_message(trace.step(name)), id=trace.id)
            for trace in traces
        ]
        assert rows[0].prefix == rows[1].prefix > 0
        assert rows[0].input_ids[: rows[0].prefix] == rows[1].input_ids[: rows[1].prefix]
        assert [row.key for row in rows] == [f"0/{name}", f"1/{name}"]
    assert first_message(traces[0].step("user")) == 0


@pytest.mark.slow
def test_the_logits_of_a_large_vocabulary_are_never_there_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logits, "CHUNK_BYTES", 2**20)
    rows = [TokenRow(input_ids=(5,) * 3, prefix=0, output_ids=(6,) * 40)] * 8

    def prepare():
        model = tiny_language_model(vocabulary=20_000, num_hidden_layers=1)
        return lambda: token_scores(model, rows, GradientOptions(scalar="sum_squares"))

    all_logits = 8 * 40 * 20_000 * 4
    assert 2**20 < fake_peak(prepare) < all_logits / 2


def test_a_pass_knows_its_padding():
    model = tiny_language_model(vocabulary=97)
    rows = [
        TokenRow(input_ids=(5, 6), prefix=0, output_ids=(7, 8, 9)),
        TokenRow(input_ids=(5,), prefix=0, output_ids=(4,)),
    ]
    found = forward_rows(model, rows)
    assert found.valid.tolist() == [[True, True, True], [True, False, False]]
    (log_probs,) = found.map_logits(lambda chunk: (found.picked(chunk)[0].detach(),))
    assert (log_probs < 0).tolist() == found.valid.tolist()
