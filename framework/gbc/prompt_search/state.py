"""What an optimization has done so far: saved after every step, and enough to go on as if never interrupted."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from framework.core.errors import CheckpointError
from framework.core.io import atomic_write
from framework.core.serialization import from_json, parse_object, to_json

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Prompts that were tried on the held-out tasks.

    Attributes:
        step: of the optimization, from 0.
        changes: the new prompts by agent.
        loss: mean over the held-out tasks.
        kept: whether it was better than what there was.
        loss_before: of the prompts that it was compared with; None where an older version did not write it.
    """

    step: int
    changes: dict[str, str]
    loss: float
    kept: bool
    loss_before: float | None = None


@dataclass(frozen=True, kw_only=True)
class OptimizerState:
    """The state between two steps. Random numbers are a function of seed and step.

    Attributes:
        seed: of the optimization.
        step: the next step.
        prompts: the agents' current prompts.
        loss: of these, mean over the held-out tasks.
        evaluations: passes over the held-out tasks so far, with the first one.
        runs: runs of the graph so far, on held-out and on training tasks.
        trials: what was tried, in order.
        finished: there is nothing left to try, or the goal is reached.
    """

    seed: int
    step: int
    prompts: dict[str, str]
    loss: float
    evaluations: int
    runs: int
    trials: tuple[Trial, ...] = field(default=())
    finished: bool = False

    def since_kept(self) -> tuple[Trial, ...]:
        """The trials since prompts last changed: those that need not be repeated."""
        kept = [index for index, trial in enumerate(self.trials) if trial.kept]
        return self.trials[kept[-1] + 1 :] if kept else self.trials


def save_state(path: str | Path, state: OptimizerState) -> None:
    """Writes a state as JSON, a whole file or none; makes the folder. Raises OSError."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    record = to_json(state)
    for trial in record["trials"]:
        if trial["loss_before"] is None:
            # As it was read.
            del trial["loss_before"]
    text = json.dumps({"format": FORMAT, **record}, indent=1)
    with atomic_write(Path(path)) as stream:
        stream.write(text.encode() + b"\n")


def load_state(path: str | Path) -> OptimizerState:
    """The state of a file.

    Raises:
        CheckpointError: no such file, or none of these.
    """
    try:
        value = parse_object(Path(path).read_bytes())
        if value.pop("format", None) != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
        return from_json(OptimizerState, value, allow_missing=True)
    except (OSError, ValueError) as error:
        hint = "give a file that an optimization has saved"
        raise CheckpointError(f"{path} holds no state of an optimization ({error})", hint=hint) from None
