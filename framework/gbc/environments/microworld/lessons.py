"""What the micro world's language model learns from: prompt and message to the answer by the rules (ours).

Lessons are steps of runs by the rules, over the whole space of prompts: a third of healthy systems, a third with rows
and routes drawn without any regard to sense, so that a prompt steers the answer and nothing else does, and a third that
copies every field as it is.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from framework.gbc.environments.microworld.rules import RuleModel
from framework.gbc.environments.microworld.system import (
    DOMAINS,
    FIELDS,
    MODEL,
    NOBODY,
    NONE,
    NOTHING,
    RESPONDER_STYLES,
    STYLES,
    Row,
    System,
    draw_system,
    make_graph,
)
from framework.gbc.environments.microworld.tasks import draw_request
from framework.gbc.graph import Agent
from framework.gbc.run import RunOptions, run_graph

_SILENT = 0.1
"""Share of the runs in which one node says nothing, as in counterfactual runs."""
_KEPT = {"manager": 0.5, "worker": 0.3, "resting": 0.1, "responder": 1.0}
"""Share of the steps that become lessons: as many as it takes to learn each role, and few without anything to do."""


def draw_lessons(seed: str, num_lessons: int) -> Iterator[dict[str, Any]]:
    """Lessons {role, prompt, message, answer}, a function of the seed, any text."""
    rng = random.Random(f"lessons/{seed}")
    count = 0
    while count < num_lessons:
        system = draw_system(rng.getrandbits(48))
        request = draw_request(rng, system, most=len(DOMAINS))
        graph = make_graph(rng.choice((system, _plain(system), _any(rng, system))))
        silent = [node.name for node in (*graph.agents, *graph.tools)]
        given = {rng.choice(silent): ""} if rng.random() < _SILENT else {}
        options = RunOptions(on_empty="keep")
        for trace in run_graph(graph, {MODEL: RuleModel()}, [{"user": request}], options=options, given=[given]):
            for step in trace.steps:
                agent = graph.nodes[step.node]
                if not isinstance(agent, Agent) or step.name in given or not step.output or count >= num_lessons:
                    continue
                role = step.node if step.node in ("manager", "responder") else "worker"
                resting = role == "worker" and set(step.output.split()[1::2]) == {NONE}
                if rng.random() < _KEPT["resting" if resting else role]:
                    count += 1
                    message = step.input_text.partition("\n")[2]
                    yield {"role": role, "prompt": agent.prompt, "message": message, "answer": step.output}


def _plain(system: System) -> System:
    """Everything stays as it is: what is learned first."""
    rows, same = ({field: Row(source=field, style=style) for field in FIELDS} for style in ("full", "same"))
    return replace(system, workers=dict.fromkeys(system.workers, rows), responder=same)


def _any(rng: random.Random, system: System) -> System:
    workers = tuple(system.workers)
    return replace(
        system,
        routes={domain: rng.choice((*workers, NOBODY)) for domain in rng.sample(DOMAINS, len(DOMAINS))},
        workers={name: _any_rows(rng, STYLES) for name in workers},
        responder=_any_rows(rng, RESPONDER_STYLES),
    )


def _any_rows(rng: random.Random, styles: tuple[str, ...]) -> dict[str, Row]:
    return {
        field: Row(source=rng.choice((*FIELDS, *[field] * 3, NOTHING)), style=rng.choice(styles)) for field in FIELDS
    }
