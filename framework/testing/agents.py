"""A tiny world for training agents: a random model, two agents and a tool, tasks in shards."""

import json
from collections.abc import Mapping
from pathlib import Path

from framework.data.convert.jsonl import write_jsonl_shards
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Place, VerbalLoss
from framework.testing.language_models import save_tiny_model

WORDS = ("hotel", "train", "north", "cheap", "London", "Friday", "town", "mill")


def length_loss(trace: Trace) -> VerbalLoss:
    """A number that changes with every token of the output; its first half is wrong."""
    value = (sum(map(ord, trace.output)) % 97 + 1) / 100
    step = trace.outputs[0]
    half = (len(trace.step(step).output) + 1) // 2
    return VerbalLoss(value=value, text="It should be better.", places=(Place(step=step, start=0, stop=half),))


def spoiled(texts: Mapping[str, str]) -> str:
    """A tool that raises where the user says so."""
    if "raise" in texts["user"]:
        raise ValueError("malformed call")
    return texts["user"]


def make_world(folder: Path, *, episodes: int = 16, bad: int = 0) -> None:
    """A tiny model, a graph of two agents and a tool, tasks as shards, candidates.

    Args:
        folder: gets them.
        episodes: tasks for training; five more are held out.
        bad: of them, so many at the start make the tool fail.
    """
    save_tiny_model(folder / "model", num_hidden_layers=2)
    agent = {"model": "m", "max_new_tokens": 4}
    graph = {
        "users": [{"name": "user"}],
        "tools": [{"name": "tool", "reads": ["user"], "function": "framework.testing.agents.spoiled"}],
        "agents": [
            {"name": "first", "prompt": "Say it.", "reads": ["user", "tool"], **agent},
            {"name": "last", "prompt": "Answer.", "reads": ["first"], **agent},
        ],
    }
    (folder / "graph.yaml").write_text(json.dumps(graph))
    (folder / "candidates.yaml").write_text(
        json.dumps({"first": ["Say it.", "Ask the town.", "Book it."], "last": ["Answer.", "Hello.", "A cheap one."]})
    )
    for name, count in (("train", episodes), ("held_out", 5)):
        tasks = [
            {
                "id": f"{name}-{number}",
                "user": f"a {WORDS[number % 8]}{' raise' if name == 'train' and number < bad else ''}",
                "expected": WORDS[number % 3],
            }
            for number in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
        write_jsonl_shards(folder / f"{name}.jsonl", folder / name)
