"""The micro world's tasks and their loss."""

import random
import re
from collections.abc import Iterator, Sequence

from framework.gbc.environments.microworld.rules import RuleModel
from framework.gbc.environments.microworld.system import FIELDS, MODEL, VALUES, System, make_graph
from framework.gbc.execution.runner import Task, run_graph
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Place, VerbalLoss

_OPENINGS = ("please book", "i need", "i am looking for", "find me")
SLOT = re.compile(r"(\S+-\S+)\s+([^\s-]+)(?=\s|$)")
"""A slot in a text: its name and its value."""


def make_tasks(system: System, num_tasks: int, *, seed: int = 0) -> list[Task]:
    """Requests for two or more of the domains, with the slots that the healthy system answers by the rules.

    Each has `id`, `user` (the request), and `expected` (values by slot).

    Args:
        system: the healthy one.
        num_tasks: how many.
        seed: of the requests.
    """
    rng = random.Random(f"tasks/{seed}")
    requests = [{"id": f"{seed}-{index}", "user": draw_request(rng, system)} for index in range(num_tasks)]
    return [
        {**task, "expected": expected} for task, expected in zip(requests, _expected(system, requests), strict=True)
    ]


def draw_request(rng: random.Random, system: System, *, most: int = 3) -> str:
    """A user's words: every field of two or more of the domains, at most so many, in any order.

    Args:
        rng: of all choices.
        system: with two or more domains.
        most: domains of a request, 2 or more.
    """
    domains = rng.sample(system.domains, rng.randint(2, min(most, len(system.domains))))
    parts: list[str] = []
    for domain in domains:
        fields = rng.sample(FIELDS, len(FIELDS))
        parts.append(" ".join(f"{domain}-{field} {rng.choice(list(VALUES[field]))}" for field in fields))
    return f"{rng.choice(_OPENINGS)} {' and '.join(parts)}"


def _expected(system: System, tasks: Sequence[Task]) -> Iterator[dict[str, str]]:
    graph: Graph = make_graph(system)
    for trace in run_graph(graph, {MODEL: RuleModel()}, tasks):
        assert trace.failure is None, trace.failure
        yield {match[1]: match[2] for match in SLOT.finditer(trace.output)}


def answer_loss(trace: Trace) -> VerbalLoss:
    """The share of slots that are wrong: (wrong + missing + extra) / (expected + extra), in words too.

    The wrong and the extra slots of the answer are its places, each slot of the same weight.
    """
    expected: dict[str, str] = trace.task["expected"]
    words: list[str] = []
    places: list[Place] = []
    seen: set[str] = set()
    extra = 0
    for step in trace.outputs:
        for match in SLOT.finditer(trace.step(step).output):
            name, value, right = match[1], match[2], expected.get(match[1], "")
            if name not in expected or name in seen:
                extra += 1
                words.append(f"{name} was given as {value!r} but not asked for (false positive).")
            elif value != right:
                words.append(f"{name} should be {right!r}, it was {value!r}.")
            seen.add(name)
            if value != right:
                places.append(Place(step=step, start=match.start(2), stop=match.end(2), expected=right))
    missing = [name for name in expected if name not in seen]
    words += [f"{name} should be {expected[name]!r}, it was missing (false negative)." for name in missing]
    wrong = sum(bool(place.expected) for place in places)
    value = (wrong + len(missing) + extra) / max(1, len(expected) + extra)
    return VerbalLoss(value=value, text=" ".join(words), places=tuple(places))
