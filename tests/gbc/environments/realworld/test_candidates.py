"""Every candidate names somebody, and its cost is counted, on an episode of a tiny random model."""

import pytest

from framework.gbc.attribution.culprits.shared_prompts import SharedPrompts
from framework.gbc.environments.realworld.candidates import CANDIDATES
from framework.gbc.environments.realworld.episodes import RUN, Failure, FaultySystem
from framework.gbc.environments.realworld.systems import MODEL
from framework.gbc.execution.runner import run_graph
from framework.gbc.graph.verbal_loss import slot_loss
from framework.testing.language_models import tiny_local_model


@pytest.fixture(scope="module")
def model() -> SharedPrompts:
    return SharedPrompts(tiny_local_model())


@pytest.mark.parametrize("name", CANDIDATES)
def test_every_candidate(model, system, name):
    fault = system.faults[0]
    graph = fault.planted(system.graph)
    (trace,) = run_graph(graph, {MODEL: model}, system.numbered_tasks()[:1], options=RUN)
    failure = Failure(trace=trace, loss=slot_loss(trace), culprits=(fault.node,))
    faulty = FaultySystem(name="pair-0", system=system, faults=(fault,), graph=graph, failures=(failure,), successes=())
    for variant, verdict in CANDIDATES[name](model, faulty, failure).items():
        assert set(verdict.blame) <= {"word", "writer", "user", "loss"}, variant
        # Nobody is asked for these.
        assert (verdict.cost.tokens > 0) == (name not in ("random", "last")), variant
    if name == "mended":
        # The writer runs again after the word, and by itself.
        assert verdict.cost.answers == 3
    if name == "evidence":
        assert sum(verdict.blame.values()) == pytest.approx(1.0)
        assert verdict.is_probability
