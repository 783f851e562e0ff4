"""The micro world's front door: graph, tasks, loss, faults, candidate prompts, and the shipped language model."""

import random
from importlib.resources import as_file, files
from itertools import count

from framework.core.errors import ConfigError
from framework.gbc.environments.microworld.faults import KINDS, plant
from framework.gbc.environments.microworld.system import MODEL, WORKERS, System, draw_system, make_graph
from framework.gbc.environments.microworld.tasks import answer_loss, make_tasks
from framework.gbc.language_models.local import LocalModel, LocalModelConfig

__all__ = [
    "KINDS",
    "MODEL",
    "System",
    "answer_loss",
    "candidate_prompts",
    "draw_system",
    "load_model",
    "make_graph",
    "make_tasks",
    "plant",
]


MOST_WRONG = 5
"""Wrong candidates of an agent."""
_MOST_PLANTED = 20
"""Faults that are tried for candidates; there may be too few, and then those are other systems' prompts."""


def load_model(path: str | None = None, *, device: str = "cpu", batch_size: int = 64) -> LocalModel:
    """The micro world's language model.

    Args:
        path: folder of another one, as `export_language_model` writes it; by default the one that is shipped.
        device: where it runs.
        batch_size: most sequences in one pass of generation.

    Raises:
        ConfigError: what `LocalModel.load` finds.
    """
    if path is not None:
        return LocalModel.load(LocalModelConfig(path=path, device=device, batch_size=batch_size))
    with as_file(files("framework.gbc.environments.microworld") / "model") as folder:
        return LocalModel.load(LocalModelConfig(path=str(folder), device=device, batch_size=batch_size))


def candidate_prompts(system: System, *, num_wrong: int = 4, seed: int = 0) -> dict[str, tuple[str, ...]]:
    """For every agent its healthy prompt and plausible wrong ones, in random order.

    Args:
        system: the healthy one.
        num_wrong: wrong prompts of each agent.
        seed: of the wrong ones.

    Raises:
        ConfigError: a number out of range.
    """
    if not 0 <= num_wrong <= MOST_WRONG:
        raise ConfigError(f"num_wrong {num_wrong}", hint=f"use 0 to {MOST_WRONG}")
    rng, graph = random.Random(f"candidates/{seed}"), make_graph(system)
    found: dict[str, tuple[str, ...]] = {}
    for name, prompt in graph.prompts.items():
        kinds = [kind for kind, each in KINDS.items() if name in each.nodes(system, graph)]
        prompts = [prompt]
        for tried in count():
            if len(prompts) == num_wrong + 1:
                break
            seed = rng.getrandbits(48)
            if tried < _MOST_PLANTED:
                wrong = plant(system, rng.choice(kinds), seed=seed, culprit=name).graph.prompts[name]
            else:
                wrong = draw_system(seed, num_workers=len(WORKERS)).prompts()[name]
            if wrong not in prompts:
                prompts.append(wrong)
        found[name] = tuple(rng.sample(prompts, len(prompts)))
    return found
