"""The package tau2: how it is imported and asked, on stand-ins; every task of the real one where it is installed."""

import json
import re
import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from framework.core.errors import ConfigError, DataError
from framework.gbc.environments.tau_bench.interface import RESPOND, Action, replay
from framework.gbc.environments.tau_bench.simulators import ScriptedUser
from framework.gbc.environments.tau_bench.tau2_adapter import Tau2Bench, load_tau2_bench
from framework.gbc.environments.tau_bench.tau2_package import load_tau2_package
from framework.gbc.language_models.interface import Reply, Request


def say(text: str) -> Action:
    return Action(name=RESPOND, arguments={"content": text})


class Judge:
    """Says of all that it is asked whether it holds."""

    def __init__(self, *, met: bool = True) -> None:
        self.met = met

    def reply(self, requests: Sequence[Request]) -> list[Reply]:
        (request,) = requests
        wanted = re.findall(r"'([^']*)'", request.pieces[0].text.split("expectedOutcomes:")[1])
        found = [{"expectedOutcome": each, "reasoning": "", "metExpectation": self.met} for each in wanted]
        text = f"<think>Hm.</think>```json\n{json.dumps({'results': found})}\n```"
        empty: dict[str, Any] = dict.fromkeys(("input_ids", "input_spans", "blocks", "output_ids", "output_spans"), ())
        return [Reply(input_text="", output=text, finish="stop", **empty)]


@pytest.fixture
def tau2(monkeypatch: pytest.MonkeyPatch, house_package: Any) -> SimpleNamespace:
    """Modules with the names of the package's, around the house; what was asked is kept."""
    asked = SimpleNamespace(runs=[], disabled=[])
    registry = SimpleNamespace(
        get_task_splits_loader=lambda domain: lambda: {"base": [], "small": []},
        get_env_constructor=lambda domain: house_package.environment,
        get_tasks_loader=lambda domain: lambda task_split_name: house_package.tasks,
    )
    judged = ModuleType("tau2.evaluator.evaluator_nl_assertions")

    def generate(**_: object) -> SimpleNamespace:
        raise ValueError("no key")

    vars(judged)["generate"] = generate

    def evaluate_simulation(simulation: Any, task: Any, **options: Any) -> Any:
        asked.runs.append((simulation, options))
        if any(each.value == "NL_ASSERTION" for each in task.evaluation_criteria.reward_basis):
            messages = [SimpleNamespace(content="Judge."), SimpleNamespace(content="expectedOutcomes: ['kind']")]
            answer = vars(judged)["generate"](model="theirs", messages=messages, temperature=0.0)
            asked.answer = json.loads(answer.content)
        return house_package.evaluate(task, simulation.messages)

    modules: dict[str, dict[str, object]] = {
        "registry": {"registry": registry},
        "data_model.message": dict.fromkeys(("AssistantMessage", "UserMessage", "ToolCall"), SimpleNamespace),
        "data_model.simulation": {
            "SimulationRun": SimpleNamespace,
            "TerminationReason": SimpleNamespace(USER_STOP="user_stop"),
        },
        "evaluator.evaluator": {
            "EvaluationType": SimpleNamespace(ALL="all"),
            "evaluate_simulation": evaluate_simulation,
        },
        "user.user_simulator": {"get_global_user_sim_guidelines": lambda use_tools: f"Guidelines, {use_tools}."},
    }
    for name, names in modules.items():
        module = ModuleType(f"tau2.{name}")
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, judged.__name__, judged)
    for name in ("", ".data_model", ".evaluator", ".user"):
        monkeypatch.setitem(sys.modules, f"tau2{name}", ModuleType(f"tau2{name}"))
    loguru = ModuleType("loguru")
    vars(loguru)["logger"] = SimpleNamespace(disable=asked.disabled.append)
    monkeypatch.setitem(sys.modules, "loguru", loguru)
    return asked


def test_a_domain_is_what_the_package_registers(tau2, monkeypatch):
    monkeypatch.delenv("LITELLM_LOCAL_MODEL_COST_MAP", raising=False)
    bench = load_tau2_bench("telecom", "small")
    assert (bench.name, len(bench), bench.user_prompt) == ("telecom/small", 4, "Guidelines, True.\n\n{instruction}")
    assert tau2.disabled == ["tau2"]
    assert replay(bench, 0, ScriptedUser()).value == 1
    (run, options) = tau2.runs[-1]
    assert (run.task_id, run.termination_reason) == ("house", "user_stop")
    assert options == {"evaluation_type": "all", "solo_mode": False, "domain": "telecom"}
    with pytest.raises(ConfigError, match="telecom has no split 'dev': use one of base, small"):
        load_tau2_bench("telecom", "dev")


def test_a_model_of_ours_judges_in_place_of_the_packages(tau2):
    assert replay(load_tau2_bench("retail", judge=Judge()), 2, ScriptedUser()).basis == ("database", "judged")
    assert tau2.answer == {"results": [{"expectedOutcome": "kind", "reasoning": "", "metExpectation": True}]}
    # Afterwards the package's own is in its place again; without a judge it is not asked.
    package = load_tau2_package("retail", "base", None)
    with pytest.raises(DataError, match=r"tau2 cannot evaluate task 'house' \(ValueError: no key\)"):
        package.evaluate(package.tasks[2], [])
    assert replay(load_tau2_bench("retail"), 2, ScriptedUser()).value == 1


def test_no_such_domain_or_package(monkeypatch):
    with pytest.raises(ConfigError, match="domain 'banking': use one of retail, airline, telecom"):
        load_tau2_package("banking", "base", None)
    monkeypatch.setitem(sys.modules, "tau2", None)
    monkeypatch.setitem(sys.modules, "loguru", None)
    with pytest.raises(ConfigError, match=r"tau2-bench cannot be imported .*git clone https"):
        load_tau2_bench("retail")


# The package itself, where it is there: its modules warn of much, and its data are read anew for every task.


def _real(domain: str, **options: object) -> Tau2Bench:
    pytest.importorskip("tau2.registry", reason="tau2-bench is not installed")
    return load_tau2_bench(domain, **options)  # type: ignore[arg-type]


def _writes(bench: Tau2Bench, index: int) -> list[Action]:
    """The task's own actions of the agent that change something."""
    bench.start(index, ScriptedUser())
    return [each for each in bench.task(index).actions if each.by == "agent" and bench.act(each).changed]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("domain", "sizes"), [("retail", (16, 0)), ("airline", (14, 0)), ("telecom", (13, 30))])
def test_the_real_package(domain, sizes):
    bench = _real(domain)
    assert (len(bench.tools), len(bench.user_tools)) == sizes
    # The first task whose actions change something.
    index = next(index for index in range(len(bench)) if domain == "telecom" or _writes(bench, index))
    assert replay(bench, index, ScriptedUser()).value == 1
    assert replay(bench, index, ScriptedUser(), [say("no")]).value == 0
    with pytest.raises(ConfigError, match=f"{domain} has no split 'dev': use one of"):
        _real(domain, split="dev")


@pytest.mark.large
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("domain", "count"), [("retail", 114), ("airline", 50), ("telecom", 114)])
def test_every_task_of_the_real_package(domain, count):
    bench = _real(domain)
    assert len(bench) == count
    rewards = [replay(bench, index, ScriptedUser()).value for index in range(count)]
    assert rewards == [1.0] * count


@pytest.mark.filterwarnings("ignore")
def test_a_model_judges_in_the_real_package():
    judge = Judge()
    bench = _real("retail", judge=judge)
    index = next(i for i, each in enumerate(bench._package.tasks) if each.evaluation_criteria.nl_assertions)
    right = replay(bench, index, ScriptedUser())
    assert right.value == 1
    assert set(right.judged.values()) == {True}
    judge.met = False
    assert replay(bench, index, ScriptedUser()).value == 0
