"""Soft prompts by gradient descent on the loss that flows through the graph (ours)."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from framework.core.errors import CheckpointError, ConfigError
from framework.core.io import atomic_write
from framework.gbc.execution.runner import LanguageModel, RunOptions, Task, run_graph
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.verbal_loss import Loss
from framework.gbc.language_models.agent_parameters import ParametersByAgent
from framework.gbc.language_models.local import LocalModel
from framework.gbc.language_models.straight_through import make_soft_prompts, soft_loss

Target = Callable[[Task], str]
"""The right output of a task."""


@dataclass(frozen=True, kw_only=True)
class SoftPromptOptions:
    """How soft prompts are trained.

    Args:
        num_tokens: length of each.
        steps: of gradient descent.
        batch_size: tasks in a step.
        learning_rate: of Adam.
        evaluate_every: steps between passes over the held-out tasks.
        failed_loss: value of a run that failed.
        seed: of the first values and of the choice of tasks.
        run: how the graph runs.
    """

    num_tokens: int = 8
    steps: int = 100
    batch_size: int = 8
    learning_rate: float = 0.01
    evaluate_every: int = 10
    failed_loss: float = 1.0
    seed: int = 0
    run: RunOptions = RunOptions()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if min(self.num_tokens, self.steps, self.batch_size, self.evaluate_every) < 1 or self.learning_rate <= 0:
            problem = f"steps {self.steps}, batch_size {self.batch_size}, learning_rate {self.learning_rate}"
            raise ConfigError(problem, hint="use positive numbers")


class SoftPromptTrainer:
    """Trains the soft prompts of agents that share a local model, and keeps those that were best on held-out tasks.

    While it trains, `model.soft` holds the current soft prompts; `finish` leaves the best there, or none where none
    was better than none. Random numbers are a function of seed and step, so that a restored trainer goes on as if
    never interrupted.

    Args:
        graph: the system.
        models: by the names that the agents use.
        name: of the local model whose agents are trained.
        loss: what the held-out tasks are judged by.
        target: the right output of a task.
        options: how.
        agents: those that get soft prompts; by default all of the model.

    Raises:
        ConfigError: no such local model, or an agent of another.
    """

    def __init__(
        self,
        graph: Graph,
        models: Mapping[str, LanguageModel],
        name: str,
        *,
        loss: Loss,
        target: Target,
        options: SoftPromptOptions,
        agents: Sequence[str] = (),
    ) -> None:
        model = models.get(name)
        if not isinstance(model, LocalModel):
            raise ConfigError(f"{name!r} is no local model", hint="train soft prompts of a model with local weights")
        own = [agent.name for agent in graph.agents if agent.model == name]
        for agent in agents:
            if agent not in own:
                raise ConfigError(f"{agent!r} is no agent of model {name!r}", hint=f"use {', '.join(own)}")
        self.graph, self.models, self.name, self.model = graph, models, name, model
        self.loss, self.target, self.options = loss, target, options
        self.step, self.evaluations = 0, 0
        self.losses: list[float] = []
        self.best_loss = float("inf")
        self.best: dict[str, Tensor] = {}
        self.soft = make_soft_prompts(model, agents or own, num_tokens=options.num_tokens, seed=options.seed)
        self.optimizer = torch.optim.Adam(self.soft.parameters(), lr=options.learning_rate)

    def fit(self, train: Sequence[Task], held_out: Sequence[Task], *, save_to: str | Path | None = None) -> None:
        """Trains up to `options.steps`; saves after every evaluation.

        Raises:
            ConfigError: no tasks.
        """
        if not train or not held_out:
            raise ConfigError(f"{len(train)} training tasks, {len(held_out)} held out", hint="give some of both")
        if not self.evaluations:
            self.model.soft = nn.ParameterDict()
            self._evaluate(held_out)
        self.model.soft = self.soft
        while self.step < self.options.steps:
            self._train_step(train)
            if self.step % self.options.evaluate_every == 0 or self.step == self.options.steps:
                self._evaluate(held_out)
                if save_to is not None:
                    self.save(save_to)
        self.finish()

    def finish(self) -> None:
        """Leaves the best soft prompts in the model."""
        self.model.soft = ParametersByAgent({name: nn.Parameter(value.clone()) for name, value in self.best.items()})

    def save(self, path: str | Path) -> None:
        """Writes the state, a whole file or none; makes the folder. Raises OSError."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(Path(path)) as stream:
            torch.save(self.state_dict(), stream)

    def restore(self, path: str | Path) -> None:
        """Goes on from a saved state.

        Raises:
            CheckpointError: no such file, or one of other agents or lengths.
        """
        try:
            self.load_state_dict(torch.load(path, map_location=self.model.device, weights_only=True))
        except (OSError, RuntimeError, KeyError, TypeError) as error:
            problem = f"{path} holds no state of these soft prompts ({str(error).splitlines()[0]})"
            raise CheckpointError(problem, hint="use the graph and the options that it began with") from None

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, as tensors and plain values."""
        return {
            "soft": self.soft.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "evaluations": self.evaluations,
            "losses": list(self.losses),
            "best_loss": self.best_loss,
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.soft.load_state_dict(state["soft"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.evaluations = state["step"], state["evaluations"]
        self.losses, self.best_loss, self.best = list(state["losses"]), state["best_loss"], state["best"]

    def _train_step(self, train: Sequence[Task]) -> None:
        generator = random.Random(f"{self.options.seed}/{self.step}")
        tasks = generator.sample(list(train), min(self.options.batch_size, len(train)))
        runs = run_graph(self.graph, self.models, tasks, options=self.options.run)
        pairs = [(run, self.target(task)) for run, task in zip(runs, tasks, strict=True) if run.failure is None]
        if pairs:
            found = soft_loss(self.model, self.name, [run for run, _ in pairs], [target for _, target in pairs])
            self.optimizer.zero_grad()
            found.value.backward()
            self.optimizer.step()
            self.losses.append(found.value.item())
        self.step += 1

    def _evaluate(self, held_out: Sequence[Task]) -> None:
        runs = run_graph(self.graph, self.models, held_out, options=self.options.run)
        values = [self.options.failed_loss if run.failure else self.loss(run).value for run in runs]
        self.evaluations += 1
        mean = sum(values) / len(values)
        if mean < self.best_loss:
            self.best_loss = mean
            self.best = {name: value.detach().clone() for name, value in self.model.soft.items()}
