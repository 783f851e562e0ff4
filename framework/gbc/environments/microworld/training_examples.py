"""What the micro world's language model learns from: prompt and message to the answer by the rules (ours).

Training examples are steps of runs by the rules, over the whole space of prompts: half of healthy systems, and half
with rows and routes drawn without any regard to sense, so that a prompt steers the answer and nothing else does. Most
have a mixup pair, another example but for one word, to be mixed with (see `LanguageModelModule`): a model that has read
words by halves says to first order what another word would change.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from framework.core.serialization import JsonDict
from framework.gbc.environments.microworld.mixup_pairs import draw_pair
from framework.gbc.environments.microworld.rules import RuleModel
from framework.gbc.environments.microworld.system import (
    DOMAINS,
    FIELDS,
    MODEL,
    NAMES,
    NONE,
    NOTHING,
    SAME,
    STYLES,
    WORKERS,
    Row,
    System,
    draw_system,
    look_up,
    make_graph,
)
from framework.gbc.environments.microworld.tasks import draw_request
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Graph

_SILENT = 0.1
"""Share of the runs in which one node says nothing, as in counterfactual runs."""
_SHIFTED = 0.5
"""Share of the runs whose databases read too far: or their names would be learned by heart, not read."""
_KEPT = {"manager": 0.5, "worker": 0.4, "resting": 0.1, "unsent": 0.6, "responder": 1.0}
"""Share of the steps that become examples: as many as it takes to learn each role, few of workers without anything to
do, and more of those who are asked but not sent: or the manager's word would count for nothing."""


_PAIRED = 0.6
"""Share of the examples that get a mixup pair."""


def draw_examples(seed: str, num_examples: int) -> Iterator[JsonDict]:
    """Training examples {role, prompt, message, answer}, most with a mixup pair as `twin`; a function of the seed."""
    # Named as ever: the same examples for the same seed.
    rng = random.Random(f"lessons/{seed}")
    count = 0
    while count < num_examples:
        system = draw_system(rng.getrandbits(48))
        request = draw_request(rng, system, most=len(DOMAINS))
        graph = _shifted(rng, make_graph(rng.choice((system, _any(rng, system)))))
        silent = [node.name for node in (*graph.agents, *graph.tools)]
        given = {rng.choice(silent): ""} if rng.random() < _SILENT else {}
        options = RunOptions(on_empty="keep")
        for trace in run_graph(graph, {MODEL: RuleModel()}, [{"user": request}], options=options, given=[given]):
            for step in trace.steps:
                agent = graph.nodes[step.node]
                if not isinstance(agent, Agent) or step.name in given or not step.output or count >= num_examples:
                    continue
                role = step.node if step.node in ("manager", "responder") else "worker"
                kept = role
                if role == "worker" and set(step.output.split()[1::2]) == {NONE}:
                    kept = "unsent" if f" {system.serves[step.node]}-" in request else "resting"
                if rng.random() < _KEPT[kept]:
                    count += 1
                    message = step.input_text.partition("\n")[2]
                    example = {"role": role, "prompt": agent.prompt, "message": message, "answer": step.output}
                    pair = draw_pair(rng, example) if rng.random() < _PAIRED else None
                    yield example if pair is None else {**example, "twin": pair}


def _shifted(rng: random.Random, graph: Graph) -> Graph:
    if rng.random() >= _SHIFTED:
        return graph
    wrong = {domain: rng.randrange(len(NAMES)) for domain in DOMAINS}
    return replace(graph, tools=tuple(replace(tool, function=partial(look_up, wrong=wrong)) for tool in graph.tools))


def _any(rng: random.Random, system: System) -> System:
    return replace(
        system,
        routes={worker: rng.choice((*DOMAINS, NOTHING)) for worker in WORKERS},
        workers={name: _any_rows(rng, STYLES) for name in system.workers},
        responder=_any_rows(rng, (SAME,)),
    )


def _any_rows(rng: random.Random, styles: tuple[str, ...]) -> dict[str, Row]:
    return {
        field: Row(source=rng.choice((*FIELDS, *[field] * 3, NOTHING)), style=rng.choice(styles)) for field in FIELDS
    }
