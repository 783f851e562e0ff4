"""What a process does with its part of a batch: an attribution that fails marks its run and no other."""

from typing import Any

import pytest

from framework.core.errors import FrameworkError
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.execution.budget import ATTRIBUTION, Budget, BudgetConfig, Meter
from framework.gbc.execution.runner import RunOptions
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.agent_parameters import AgentParameters
from framework.gbc.language_models.server import ServerModel, ServerModelConfig
from framework.gbc.training.collective_models import CollectiveModels
from framework.gbc.training.parameters import SoftConfig
from framework.gbc.training.rollouts import EpisodeResult, one_task, split_episodes
from framework.gbc.training.setup import System, target_of
from framework.gbc.training.worker import RolloutWorker, all_episodes, all_errors
from framework.testing.language_models import tiny_local_model
from framework.testing.servers.model_server import serving

NO_PARAMETERS = AgentParameters(soft={}, gates={})


def wrong(trace: Trace) -> VerbalLoss:
    return VerbalLoss(value=0.5, text="wrong")


def make(graph: Graph, models: dict[str, Any], **options: Any) -> RolloutWorker:
    system = System(declared={}, graph=graph, models=models, collective_models=CollectiveModels([]))
    settings: dict[str, Any] = {
        "loss": wrong,
        "tasks_of": one_task,
        "soft": None,
        "target": None,
        "run": RunOptions(on_empty="keep"),
        "attribution": AttributionOptions(),
        "examples": False,
        "meter": Meter({}),
        "budget": Budget(BudgetConfig()),
        "seed": 0,
        **options,
    }
    return RolloutWorker(system, **settings)


def run(worker: RolloutWorker, episodes: list[Any]) -> list[EpisodeResult]:
    return worker.run_episodes(worker.system.graph, split_episodes(range(len(episodes)), episodes, one_task), epoch=0)


@pytest.mark.slow
def test_an_attribution_whose_server_fails():
    agents = (
        Agent(name="a", prompt="A", model="big", reads=("user",), estimator="pass_through"),
        Agent(name="b", prompt="B", model="big", reads=("a", "user"), estimator="leave_one_out"),
    )
    # Two tasks of two agents run well; of the attributions' questions the first of the first task fails for good.
    with serving(*["well"] * 4, 400, 400) as server:
        config = ServerModelConfig(url=server.url, model="x", timeout_s=5.0, retries=0, backoff_s=0.0, parallel=1)
        worker = make(Graph(agents=agents), {"big": ServerModel(config)})
        with worker.synchronized(NO_PARAMETERS):
            runs, blamed = worker.attribute(run(worker, [{"user": "x"}, {"user": "y"}]))
    assert "refuses with state 400" in str(runs[0].failure)
    assert runs[0].loss is None
    assert runs[1].failure is None
    assert [each.place for each in blamed] == [(1, 0)]
    assert worker.attributed.keys() == {(1, 0)}
    assert worker.attributed[1, 0].agents == blamed[0].credits
    assert not isinstance(runs[1].failure, FrameworkError)
    (rank,) = worker.exchange(runs, blamed)
    assert all_episodes([rank])[1].trace is None
    assert all_errors([rank]) == blamed
    assert rank.spent["b"].calls > 2


def test_a_task_without_its_target_has_failed():
    graph = Graph(agents=(Agent(name="a", prompt="A", model="m", reads=("user",), max_new_tokens=2),))
    soft = SoftConfig(model="m", target="expected")
    worker = make(graph, {"m": tiny_local_model()}, soft=soft, target=target_of(soft.target))
    with worker.synchronized(NO_PARAMETERS):
        runs, found = worker.gradients(
            run(worker, [{"user": "x", "expected": "north"}, {"user": "y"}]), NO_PARAMETERS, num_episodes=2
        )
    assert [each.failure is None for each in runs] == [True, False]
    assert "no text 'expected'" in str(runs[1].failure)
    assert found.num_traces == 1


def test_attribution_is_booked():
    graph = Graph(agents=(Agent(name="a", prompt="A", model="m", reads=("user",), max_new_tokens=2),))
    worker = make(graph, {"m": tiny_local_model()}, examples=True)
    with worker.synchronized(NO_PARAMETERS):
        runs, blamed = worker.attribute(run(worker, [{"user": "x"}]))
    assert blamed[0].example
    spent = worker.exchange(runs)[0].spent
    assert spent[ATTRIBUTION].calls == 1
    assert spent[ATTRIBUTION].tokens == spent["a"].tokens


def test_agents_recite_their_targets_in_training_alone():
    model = tiny_local_model()
    first = Agent(name="first", prompt="x", model="m", reads=("user",), max_new_tokens=2)
    last = Agent(name="last", prompt="x", model="m", reads=("first",), max_new_tokens=2)
    graph = Graph(agents=(first, last), outputs=("first", "last"))
    soft = SoftConfig(model="m", rollouts="targets")
    worker = make(graph, {"m": model}, soft=soft, target=target_of("expected"))
    known = {"user": "a hotel", "expected": {"first": "north", "last": "the old mill"}}
    tasks = split_episodes(range(2), [known, {"user": "a hotel"}], one_task)
    trained = worker.run_episodes(graph, tasks, epoch=0, training=True)
    generated = worker.run_episodes(graph, tasks, epoch=0)
    texts = [[step.output for step in each.trace.steps[1:]] for each in (*trained, *generated) if each.trace]
    assert texts[0] == ["north", "the old mill"]
    # A task without a target is generated; so is every other outside of training.
    assert texts[1] == texts[2] == texts[3] != texts[0]
    marked, _ = worker.gradients(trained, NO_PARAMETERS, num_episodes=2)
    assert [each.failure is None for each in marked] == [True, False]
    one = make(Graph(agents=(first,)), {"m": model}, soft=soft, target=target_of("expected"))
    tasks = split_episodes([0], [{"user": "a hotel", "expected": "north"}], one_task)
    (result,) = one.run_episodes(one.system.graph, tasks, epoch=0, training=True)
    assert result.trace is not None
    assert result.trace.output == "north"
