"""Options of soft prompts, apart from what trains them: a command line is read without importing Lightning."""

from dataclasses import dataclass

from framework.core.errors import ConfigError
from framework.gbc.execution.runner import RunOptions


@dataclass(frozen=True, kw_only=True)
class SoftPromptOptions:
    """How soft prompts are trained.

    Args:
        num_tokens: length of each, 1 or more.
        steps: of gradient descent, 1 or more.
        batch_size: tasks in a step, 1 or more.
        learning_rate: of Adam; positive.
        evaluate_every: steps between passes over the held-out tasks, 1 or more; there is one after the last step too.
        seed: of the first values and of the order of the tasks.
        run: how the graph runs.
    """

    num_tokens: int = 8
    steps: int = 100
    batch_size: int = 8
    learning_rate: float = 0.01
    evaluate_every: int = 10
    seed: int = 0
    run: RunOptions = RunOptions()

    def __post_init__(self) -> None:
        if min(self.num_tokens, self.steps, self.batch_size, self.evaluate_every) < 1 or self.learning_rate <= 0:
            problem = f"steps {self.steps}, batch_size {self.batch_size}, learning_rate {self.learning_rate}"
            raise ConfigError(problem, hint="use positive numbers")
