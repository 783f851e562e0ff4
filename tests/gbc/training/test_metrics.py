"""The metrics of a step by hand."""

import pytest

from framework.gbc.attribution.results import AgentCredit
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.training.failure_limit import FailureConfig, Failures
from framework.gbc.training.metrics import credit_metrics, episode_metrics, gradient_metrics, validation_metrics
from framework.gbc.training.prompt_steps import AttributedError
from framework.gbc.training.rollouts import EpisodeResult
from framework.gbc.training.worker import RankResult

RESULTS = [
    EpisodeResult(sample=0, number=0, weight=1.0, id="0", loss=VerbalLoss(value=0.5, text="")),
    EpisodeResult(sample=1, number=0, weight=1.0, id="1", loss=VerbalLoss(value=0.0, text="")),
    EpisodeResult(sample=2, number=0, weight=1.0, id="2", failure="it broke"),
    EpisodeResult(sample=3, number=0, weight=1.0, id="3", failure="it broke"),
]


def error(place: int, loss: float, **own: float) -> AttributedError:
    credits = tuple(AgentCredit(name=name, through=1.0, own=value, walk=value) for name, value in own.items())
    return AttributedError(place=(place, 0), loss=loss, credits=credits)


def test_episodes():
    failures = Failures(FailureConfig())
    failures.note_results(RESULTS)
    assert episode_metrics(RESULTS, failures) == {
        "loss/verbal": 0.25,
        "success/train": 0.25,
        "failures/count": 2.0,
        "failures/share": 0.5,
    }
    assert validation_metrics(RESULTS) == {
        "validation/loss": 0.25,
        "validation/success": 0.25,
        "validation/failed_share": 0.5,
    }


def test_gradients_of_all_processes():
    ranks = [
        RankResult(episodes=[], errors=[], connected_share=1.0, num_traces=1, spent={}, seconds=0.0) for _ in range(2)
    ]
    assert gradient_metrics(ranks, num_tasks=4) == {
        "soft/flowing_share": 1.0,
        "soft/trained_share": 0.5,
    }


def test_credits_of_every_node():
    found = credit_metrics([error(0, 0.5, a=1.0), error(1, 1.5, a=0.0, b=1.0)], ["a", "b", "c"])
    assert found["credit_own_by_agent/a"] == found["credit_own_by_agent/b"] == 0.5
    # Walks are weighted by the losses.
    assert found["credit_walk_by_agent/a"] == pytest.approx(0.25)
    assert found["credit_walk_by_agent/b"] == pytest.approx(0.75)
    assert found["credit_through_by_agent/a"] == 1.0
    assert found["credit_own_by_agent/c"] == 0.0
    assert set(credit_metrics([], ["a"]).values()) == {0.0}
