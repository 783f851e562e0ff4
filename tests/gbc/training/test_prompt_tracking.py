"""What a training of agents shows of itself: chosen, cut, cleaned, and the same from any number of processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from framework.core.errors import ConfigError
from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.options import AttributionOptions, ConnectionOptions
from framework.gbc.attribution.results import Attribution, MessageCredit, mean_attribution
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.prompt_search.state import Trial
from framework.gbc.tracking.episode_records import FOLDER, GRAPH, read_blame
from framework.gbc.tracking.prompt_history import read_prompts
from framework.gbc.training import prompt_tracking as history
from framework.gbc.training.prompt_steps import AttributedError
from framework.gbc.training.prompt_tracking import (
    ErrorHistory,
    Shown,
    TrackingConfig,
    _rooms,
    episode_of,
    show_errors,
    show_trials,
    tried_prompts,
)
from framework.testing.language_models import tiny_local_model

ORDER = ("user", "a", "b")
GRAPH_OF_TWO = Graph(
    agents=(
        Agent(name="a", prompt="Say it.", model="m", reads=("user",), max_new_tokens=3),
        Agent(name="b", prompt="B", model="m", reads=("a",), max_new_tokens=3),
    )
)
CONFIG = TrackingConfig(every_n_steps=2, worst=2)


@pytest.fixture(scope="module")
def found() -> list[Attribution]:
    models = {"m": tiny_local_model()}
    tasks = [{"id": f"t{number}", "user": f"a hotel {number}"} for number in range(4)]
    traces = list(run_graph(GRAPH_OF_TWO, models, tasks, options=RunOptions(on_empty="keep")))
    losses = [VerbalLoss(value=value, text=f"It is {value}.") for value in (0.25, 1.0, 0.5, 0.5)]
    options = AttributionOptions(connections=ConnectionOptions(prompts=True))
    return attribute(traces, GRAPH_OF_TWO, models, losses, options)


def note(watch: ErrorHistory, step: int, found: list[Attribution], own: list[int]) -> None:
    """All processes see all errors, each has attributions of its own."""
    errors = [AttributedError(place=(n, 0), loss=each.loss, credits=each.agents) for n, each in enumerate(found)]
    watch.note(step, errors, {(n, 0): found[n] for n in own})


def test_the_worst_of_a_step_are_taken_once(found: list[Attribution]):
    watch = ErrorHistory(CONFIG, ORDER)
    assert watch.take(2) is None
    note(watch, 0, found, [0, 1, 2, 3])
    assert watch.take(1) is None
    # A step without errors in between changes nothing.
    watch.note(1, [], {})
    shown = watch.take(2)
    assert shown is not None
    assert (shown.step.step, shown.step.errors, shown.step.loss) == (0, 4, 0.5625)
    # Of equals the first.
    assert [episode.id for episode in shown.step.episodes] == ["t1", "t2"]
    assert shown.mean.loss == pytest.approx(0.5625)
    assert shown.mean.count == 4
    assert watch.take() is None
    note(watch, 2, found[:2], [0, 1])
    note(watch, 3, found[:1], [0])
    last = watch.take()
    assert last is not None
    assert (last.step.step, last.step.errors) == (3, 1)


def test_micro_batches_of_a_step_are_together(found: list[Attribution]):
    watch = ErrorHistory(CONFIG, ORDER)
    note(watch, 0, found[:1], [0])
    note(watch, 0, found[:2], [0, 1])
    shown = watch.take(2)
    assert shown is not None
    assert shown.step.errors == 3


def test_nothing_is_noted_where_nothing_is_asked_for(found: list[Attribution]):
    watch = ErrorHistory(TrackingConfig(every_n_steps=0), ORDER)
    note(watch, 0, found, [0, 1, 2, 3])
    assert watch.take() is None


def test_two_processes_send_little_and_show_the_same(found: list[Attribution], monkeypatch: pytest.MonkeyPatch):
    alone = ErrorHistory(CONFIG, ORDER)
    note(alone, 0, found, [0, 1, 2, 3])
    whole = alone.take(2)
    assert whole is not None
    sent: list[Any] = []
    monkeypatch.setattr(history, "all_gather_object", lambda share: sent.append(share) or [share])
    for own in ([0, 1], [2, 3]):
        watch = ErrorHistory(CONFIG, ORDER)
        note(watch, 0, found, own)
        watch.take(2)
    for mean, episodes in sent:
        assert [episode.id for _, episode in episodes] in (["t1"], ["t2"])
        assert not any(message.text or message.spans for each in mean for message in each.messages)
    watch = ErrorHistory(CONFIG, ORDER)
    note(watch, 0, found, [])
    monkeypatch.setattr(history, "all_gather_object", lambda share: [share, *sent])
    shown = watch.take(2)
    assert shown is not None
    assert shown.step == whole.step
    for ours, theirs in ((shown.mean, whole.mean), (whole.mean, mean_attribution(found, ORDER))):
        assert [edge.credit for edge in ours.edges] == pytest.approx([edge.credit for edge in theirs.edges])
        assert [edge.share for edge in ours.edges] == pytest.approx([edge.share for edge in theirs.edges])
        for kind in ("own", "through", "walk"):
            assert [getattr(agent, kind) for agent in ours.agents] == pytest.approx(
                [getattr(agent, kind) for agent in theirs.agents]
            )
        assert ours.count == theirs.count == 4


def test_prompts_stand_before_what_was_said(found: list[Attribution]):
    episode = episode_of(found[1], CONFIG)
    assert [text.name for text in episode.texts] == ["user", "prompt of a", "a", "prompt of b", "b"]
    assert episode.walk[0] == "loss"
    assert episode.own == {agent.name: agent.own for agent in found[1].agents}
    for text, message in zip(episode.texts[::2], found[1].messages, strict=True):
        assert text.text == message.text
        assert sum(text.credits) == pytest.approx(message.credit, rel=1e-3, abs=1e-6)


def long(text: str, credits: list[float]) -> MessageCredit:
    spans = tuple((start, start + 1) for start in range(len(text)))
    return MessageCredit(step="a", node="a", text=text, credit=sum(credits), spans=spans, token_credits=tuple(credits))


def test_long_texts_are_cut_around_their_credit(found: list[Attribution]):
    assert _rooms([10, 500, 3, 500], 213) == [10, 100, 3, 100]
    assert _rooms([10, 20], 100) == [10, 20]
    top = long("x" * 5000 + "!" + "y" * 4999, [0.0] * 5000 + [1.0] + [0.0] * 4999)
    cut = replace(found[0], prompts=(), messages=(top,), loss_text="z" * 3000)
    episode = episode_of(cut, TrackingConfig(max_characters=200))
    (text,) = episode.texts
    assert text.text == "... " + "x" * 100 + "!" + "y" * 99 + " ..."
    ((start, stop),) = [span for span, credit in zip(text.spans, text.credits, strict=True) if credit]
    assert text.text[start:stop] == "!"
    assert text.credit == 1.0
    assert len(episode.loss_text) < 60
    many = tuple(replace(long("word", [0.1 * n] * 4), step=f"a@{n}") for n in range(60))
    episode = episode_of(replace(cut, messages=many), CONFIG)
    assert [text.name for text in episode.texts] == [f"a@{n}" for n in range(20, 60)]
    assert episode.left_out == 20


def test_secrets_are_removed_and_the_text_keeps_its_credit(found: list[Attribution]):
    secret = "see https://me:planted-password@host now"
    message = long(secret, [0.01] * len(secret))
    (text,) = episode_of(replace(found[0], prompts=(), messages=(message,)), CONFIG).texts
    assert text.text == "see https://<removed>@host now"
    assert text.spans == ((0, len(text.text)),)
    assert text.credits == pytest.approx((message.credit,))
    (text,) = episode_of(replace(found[0], prompts=(), messages=(long("a\ud83db", [0.0, 1.0, 0.0]),)), CONFIG).texts
    assert (text.text, text.credits) == ("a?b", (0.0, 1.0, 0.0))


def test_the_blame_is_written(found: list[Attribution], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    watch = ErrorHistory(CONFIG, ORDER)
    note(watch, 0, found, [0, 1, 2, 3])
    shown = watch.take()
    assert isinstance(shown, Shown)
    show_errors(tmp_path, [], shown)
    assert read_blame(tmp_path) == shown.step
    assert (tmp_path / FOLDER / GRAPH).read_text().startswith("<svg")
    monkeypatch.setattr(history, "_MOST_DRAWN", 2)
    show_errors(tmp_path, [], shown)
    assert not (tmp_path / FOLDER / GRAPH).exists()


def test_tried_prompts_stand_against_what_they_should_replace(tmp_path: Path):
    trials = [
        Trial(step=3, changes={"a": "A1"}, loss=0.6, kept=False),
        Trial(step=3, changes={"a": "A2", "b": "B2"}, loss=0.4, kept=True),
        Trial(step=3, changes={"a": "A3"}, loss=0.3, kept=True),
    ]
    tried = tried_prompts(trials, step=7, first=4, prompts={"a": "A", "b": "B"}, loss=0.5)
    assert [(t.trial, t.agent, t.before, t.after, t.loss_before, t.loss, t.kept) for t in tried] == [
        (4, "a", "A", "A1", 0.5, 0.6, False),
        (5, "a", "A", "A2", 0.5, 0.4, True),
        (5, "b", "B", "B2", 0.5, 0.4, True),
        (6, "a", "A2", "A3", 0.4, 0.3, True),
    ]
    show_trials(tmp_path, [], tried)
    show_trials(tmp_path, [], [])
    assert read_prompts(tmp_path) == tried


@pytest.mark.parametrize("options", [{"every_n_steps": -1}, {"worst": -1}, {"max_characters": 0}])
def test_what_cannot_be_shown(options: dict[str, int]):
    with pytest.raises(ConfigError, match=f"{next(iter(options))} {next(iter(options.values()))}"):
        TrackingConfig(**options)
