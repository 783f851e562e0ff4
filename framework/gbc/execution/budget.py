"""What agents spend: model calls, tokens, seconds and servers' prices, and the bounds that a recipe sets (ours)."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypedDict

from framework.core.errors import ConfigError, FrameworkError
from framework.core.serialization import JsonDict, to_json
from framework.gbc.language_models.interface import LanguageModel, Reply, Request

ATTRIBUTION = "attribution"
"""What attribution spends is booked under this name, beside the agents."""
_CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What was spent.

    Attributes:
        calls: requests that were sent to a model, those that failed included.
        input_tokens, output_tokens: read and written; where a server does not count them, a quarter of the characters.
        seconds: of models at work, summed over processes; a batch's are shared among its requests by their tokens.
        cost: in the currency of `BudgetConfig.prices`.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Spending") -> "Spending":
        return Spending(
            calls=self.calls + other.calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            seconds=self.seconds + other.seconds,
            cost=self.cost + other.cost,
        )


class BudgetState(TypedDict):
    """`Budget` in a checkpoint."""

    by_agent: dict[str, JsonDict]
    wall_seconds: float


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a model's tokens cost, a million of them.

    Args:
        input: of tokens read.
        output: of tokens written.
    """

    input: float = 0.0
    output: float = 0.0

    def __post_init__(self) -> None:
        if min(self.input, self.output) < 0:
            raise ConfigError(f"a price of {min(self.input, self.output)}", hint="use 0 or more")


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """Bounds of a training, over all processes and all starts; what is not set has none.

    They are looked at after every optimizer step and between the trials of a proposal: what is begun is finished.

    Args:
        max_calls: model calls.
        max_tokens: tokens read and written.
        max_wall_seconds: time in training.
        max_cost: of servers, in the currency of `prices`.
        prices: by model.
    """

    max_calls: int | None = None
    max_tokens: int | None = None
    max_wall_seconds: float | None = None
    max_cost: float | None = None
    prices: dict[str, Price] = field(default_factory=dict[str, Price])

    def __post_init__(self) -> None:
        for name in ("max_calls", "max_tokens", "max_wall_seconds", "max_cost"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"budget.{name} {value}", hint="use a positive number, or leave it out for no bound")
        if self.max_cost is not None and not self.prices:
            raise ConfigError(f"budget.max_cost {self.max_cost} without prices", hint="give the prices of some models")


class Meter:
    """Notes what this process spends, by agent."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self.prices = prices
        self._spent: dict[str, Spending] = {}

    def watch(self, name: str, model: LanguageModel) -> None:
        """From now on every call of the model is noted, whoever makes it; it stays the object that it is."""
        reply: Callable[[Sequence[Request]], Sequence[Reply | FrameworkError]] = model.reply

        def metered(requests: Sequence[Request]) -> Sequence[Reply | FrameworkError]:
            start = time.perf_counter()
            replies = reply(requests)
            self._note(name, requests, replies, time.perf_counter() - start)
            return replies

        setattr(model, "reply", metered)  # noqa: B010 - the protocol has a method, not an attribute

    @contextmanager
    def booked(self, name: str, *, calls: int, tokens: int) -> Generator[None, None, None]:
        """Books what happens within it, such as attribution, with its time.

        Args:
            name: that it is booked under.
            calls: of models.
            tokens: read.
        """
        start = time.perf_counter()
        yield
        self._add(name, Spending(calls=calls, input_tokens=tokens, seconds=time.perf_counter() - start))

    def take(self) -> dict[str, Spending]:
        """What was spent since the last time, by agent."""
        spent, self._spent = self._spent, {}
        return spent

    def _note(
        self, name: str, requests: Sequence[Request], replies: Sequence[Reply | FrameworkError], seconds: float
    ) -> None:
        counts = [_tokens(request, reply) for request, reply in zip(requests, replies, strict=True)]
        total = sum(map(sum, counts))
        price = self.prices.get(name, Price())
        for request, (read, written) in zip(requests, counts, strict=True):
            self._add(
                request.step.partition("@")[0],
                Spending(
                    calls=1,
                    input_tokens=read,
                    output_tokens=written,
                    seconds=seconds * ((read + written) / total if total else 1 / len(requests)),
                    cost=(read * price.input + written * price.output) / 1e6,
                ),
            )

    def _add(self, agent: str, spending: Spending) -> None:
        self._spent[agent] = self._spent.get(agent, Spending()) + spending


class Budget:
    """What all processes have spent together, in all and since the last optimizer step, and whether it is enough."""

    def __init__(self, config: BudgetConfig) -> None:
        self.config = config
        self.by_agent: dict[str, Spending] = {}
        self.step: dict[str, Spending] = {}
        self.wall_seconds = 0.0

    @property
    def total(self) -> Spending:
        """Of all agents."""
        return sum(self.by_agent.values(), Spending())

    def add(self, spent: Sequence[Mapping[str, Spending]], *, wall_seconds: float = 0.0) -> None:
        """Adds what each process has spent, by agent, and the time in training since the last call, in seconds."""
        self.wall_seconds += wall_seconds
        for each in spent:
            for agent, spending in sorted(each.items()):
                self.by_agent[agent] = self.by_agent.get(agent, Spending()) + spending
                self.step[agent] = self.step.get(agent, Spending()) + spending

    def start_step(self) -> None:
        """A new optimizer step begins."""
        self.step = {}

    def exceeded(self) -> str | None:
        """The bound that is met, in words; None while there is something left."""
        total, config = self.total, self.config
        for name, value, bound in (
            ("model calls", total.calls, config.max_calls),
            ("tokens", total.tokens, config.max_tokens),
            ("seconds of training", self.wall_seconds, config.max_wall_seconds),
            ("cost", total.cost, config.max_cost),
        ):
            if bound is not None and value >= bound:
                return f"{value:.6g} of {bound:.6g} {name}"
        return None

    def metrics(self) -> dict[str, float]:
        """Totals, what the last optimizer step took, and the total of each agent; of prices only if there are some."""
        total, step = self.total, sum(self.step.values(), Spending())
        found = {
            "budget/calls": total.calls,
            "budget/tokens": total.tokens,
            "budget/model_seconds": total.seconds,
            "budget/wall_seconds": self.wall_seconds,
            "budget/cost": total.cost,
            "budget_step/calls": step.calls,
            "budget_step/tokens": step.tokens,
            "budget_step/model_seconds": step.seconds,
            "budget_step/cost": step.cost,
        }
        for agent, spending in self.by_agent.items():
            found[f"budget_calls_by_agent/{agent}"] = spending.calls
            found[f"budget_tokens_by_agent/{agent}"] = spending.tokens
            found[f"budget_seconds_by_agent/{agent}"] = spending.seconds
            if total.cost:
                found[f"budget_cost_by_agent/{agent}"] = spending.cost
        return {name: float(value) for name, value in found.items()}

    def state_dict(self) -> BudgetState:
        """Plain types."""
        return {
            "by_agent": {agent: to_json(spending) for agent, spending in self.by_agent.items()},
            "wall_seconds": self.wall_seconds,
        }

    def load_state_dict(self, state: BudgetState) -> None:
        """The inverse of `state_dict`."""
        self.by_agent = {agent: Spending(**spending) for agent, spending in state["by_agent"].items()}
        self.wall_seconds = state["wall_seconds"]


def _tokens(request: Request, reply: Reply | FrameworkError) -> tuple[int, int]:
    """Tokens read and written by a request; of one that failed none are known."""
    if isinstance(reply, FrameworkError):
        return 0, 0
    if reply.usage is not None:
        return reply.usage
    if reply.input_ids:
        return len(reply.input_ids), len(reply.output_ids)
    return len(reply.input_text) // _CHARACTERS_A_TOKEN, len(reply.output) // _CHARACTERS_A_TOKEN
