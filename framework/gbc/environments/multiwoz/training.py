"""MultiWOZ for `GBCModule`: tasks of an episode, the loss of a turn, and right outputs."""

from collections.abc import Mapping

from framework.core.errors import ConfigError
from framework.core.serialization import JsonDict
from framework.gbc.environments.multiwoz.dataset.database import Database
from framework.gbc.environments.multiwoz.dataset.dialogues import dialogue_from_json
from framework.gbc.environments.multiwoz.dataset.slots import DOMAINS, domain_of
from framework.gbc.environments.multiwoz.losses import TurnLoss
from framework.gbc.environments.multiwoz.tasks import format_state, response_tasks, state_tasks
from framework.gbc.execution.runner import Task
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss


class Tasks:
    """The turns of a dialogue as tasks: to track its state and, with a release, to answer.

    Args:
        release: folder or zip with the databases; without one there are no answers to be judged.
        max_context_turns: the last turns that the context has; all by default.
        max_turns: the first turns that are taken; all by default.

    Raises:
        ConfigError: numbers out of range.
        DataError: a release that cannot be read.
    """

    def __init__(
        self, release: str | None = None, max_context_turns: int | None = None, max_turns: int | None = None
    ) -> None:
        if any(bound is not None and bound < 1 for bound in (max_context_turns, max_turns)):
            problem = f"max_context_turns {max_context_turns}, max_turns {max_turns}"
            raise ConfigError(problem, hint="use 1 or more, or leave them out")
        self.max_context_turns, self.max_turns = max_context_turns, max_turns
        self._database = None if release is None else Database.of_release(release)

    def __call__(self, episode: object) -> list[JsonDict]:
        """The tasks of an episode; DataError for a dialogue that is empty, truncated or has unknown labels."""
        dialogue = dialogue_from_json(episode)
        if self._database is None:
            tasks = state_tasks(dialogue, max_context_turns=self.max_context_turns)
        else:
            tasks = response_tasks(dialogue, self._database, max_context_turns=self.max_context_turns)
        return tasks[: self.max_turns]


class Loss:
    """`TurnLoss` over a release's database.

    Args:
        release: folder or zip with the databases.

    Raises:
        DataError: a release that cannot be read.
    """

    def __init__(self, release: str) -> None:
        self._loss = TurnLoss(Database.of_release(release))

    def __call__(self, trace: Trace) -> VerbalLoss:
        """The loss of a trace of one turn."""
        return self._loss(trace)


def turn_targets(task: Task) -> dict[str, str]:
    """What the workers and, where the release has an answer, the responder should say."""
    expected: Mapping[str, str] = task["expected"]
    targets = {
        domain: format_state({slot: value for slot, value in expected.items() if domain_of(slot) == domain})
        for domain in DOMAINS
    }
    return targets | ({"responder": task["reference"]} if task.get("reference") else {})
