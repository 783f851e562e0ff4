"""What users follow a training of agents by: tried prompts, the graph with its credits, the worst episodes.

All processes note what they attributed; the first one writes it into the run's folder and shows it in W&B. What only
one process has, the tokens, is sent for the few worst episodes alone.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning.pytorch import Callback, Trainer

from framework.core.collectives import all_gather_object
from framework.core.errors import ConfigError
from framework.gbc.attribution.graph_plot import graph_image, graph_svg
from framework.gbc.attribution.results import LOSS, Attribution, MessageCredit, mean_attribution
from framework.gbc.execution.budget import Budget
from framework.gbc.prompt_search.search import PromptSearch
from framework.gbc.prompt_search.state import Trial
from framework.gbc.tracking.credit_html import episodes_page
from framework.gbc.tracking.episode_records import BlameOfStep, CreditedText, Episode, cleaned, write_blame
from framework.gbc.tracking.prompt_diff import difference, marked, shortened
from framework.gbc.tracking.prompt_history import TriedPrompt, forget_prompts, note_prompts, read_prompts
from framework.gbc.training.prompt_steps import AttributedError
from framework.tracking.wandb_run import TrackedRun

PROMPTS, GRAPH, EPISODES = "agents/prompts", "agents/graph", "agents/worst_episodes"
"""Names in W&B."""
_COLUMNS = ("step", "agent", "loss", "loss before", "kept", "before", "after", "difference")
_MOST_ROWS = 500
_MOST_TEXTS = 40
_MOST_DRAWN = 60
"""Steps of a graph, loops unrolled, that a plot has room for."""

Place = tuple[int, int]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """What of the attributed errors is shown; tried prompts always are.

    Args:
        every_n_steps: optimizer steps after which the newest step with errors is shown, as it is at the end; 0 for
            never.
        worst: episodes with the largest losses that are shown with tokens coloured by credit.
        max_characters: of the texts of such an episode; of longer ones the parts around their largest credits are kept.
    """

    every_n_steps: int = 10
    worst: int = 3
    max_characters: int = 8000

    def __post_init__(self) -> None:
        if min(self.every_n_steps, self.worst) < 0 or self.max_characters < 100:
            problem = (
                f"tracking.every_n_steps {self.every_n_steps}, worst {self.worst}, max_characters {self.max_characters}"
            )
            raise ConfigError(problem, hint="use 0 or more steps and episodes, and 100 characters or more")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The errors of a step as they are shown.

    Attributes:
        step: the step, and its worst episodes.
        mean: attribution over all errors, without texts.
    """

    step: BlameOfStep
    mean: Attribution


class ErrorHistory:
    """The errors of the newest attributed step that had some, on every process.

    Args:
        config: what is shown.
        order: the graph's steps, in topological order.
    """

    def __init__(self, config: TrackingConfig, order: Sequence[str]) -> None:
        self.config, self.order = config, tuple(order)
        self._step = -1
        self._errors: list[tuple[float, Place]] = []
        self._own: list[tuple[Place, Attribution]] = []

    def note(self, step: int, errors: Sequence[AttributedError], attributed: Mapping[Place, Attribution]) -> None:
        """Errors of a micro-batch.

        Args:
            step: optimizer step, from 0.
            errors: of all processes.
            attributed: of this process.
        """
        if not self.config.every_n_steps or not errors:
            return
        if step != self._step:
            self._step, self._errors, self._own = step, [], []
        self._errors += [(each.loss, each.place) for each in errors]
        self._own += attributed.items()

    def take(self, steps: int | None = None) -> Shown | None:
        """What was noted, once; all processes call this together.

        Args:
            steps: optimizer steps done so far; nothing is taken between multiples of `every_n_steps`. None at the end.
        """
        every = self.config.every_n_steps
        if not self._errors or (steps is not None and steps % every):
            return None
        # The worst first, equals by their places: the same on any number of processes.
        chosen = {place for _, place in sorted(self._errors, key=lambda each: (-each[0], each[1]))[: self.config.worst]}
        mean = [mean_attribution([each for _, each in self._own], self.order)] if self._own else []
        worst = [(place, episode_of(each, self.config)) for place, each in self._own if place in chosen]
        parts = all_gather_object(([replace(each, trajectories=()) for each in mean], worst))
        episodes = sorted((each for _, found in parts for each in found), key=lambda each: (-each[1].loss, each[0]))
        whole = mean_attribution([each for found, _ in parts for each in found], self.order)
        step = BlameOfStep(
            step=self._step,
            errors=len(self._errors),
            loss=sum(loss for loss, _ in self._errors) / len(self._errors),
            episodes=tuple(episode for _, episode in episodes[: self.config.worst]),
        )
        self._errors, self._own = [], []
        return Shown(step=step, mean=whole)


class EpisodeTracker(Callback):
    """Shows tried prompts and attributed errors in the run's folder and in W&B.

    Args:
        config: what is shown.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self.config = config
        self.history = ErrorHistory(config, ())

    def start(self, order: Sequence[str]) -> None:
        """The graph is known: its steps, in topological order."""
        self.history = ErrorHistory(self.config, order)

    def on_train_start(self, trainer: Trainer, pl_module: object) -> None:
        if trainer.is_global_zero:
            forget_prompts(Path(trainer.default_root_dir), from_step=trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: object) -> None:
        self.show_errors(trainer)

    def show_errors(self, trainer: Trainer, steps: int | None = None) -> None:
        """What was noted, as `ErrorHistory.take` gives it; all processes call this together."""
        shown = self.history.take(steps)
        if shown is not None and trainer.is_global_zero:
            show_errors(Path(trainer.default_root_dir), trainer.loggers, shown)

    def step_search(self, trainer: Trainer, search: PromptSearch, *, step: int, budget: Budget) -> bool:
        """Lets a search make a step and shows its trials; whether one of them was kept.

        Args:
            trainer: of the run.
            search: makes the step.
            step: optimizer steps done so far.
            budget: no further trial begins where one of its bounds is met.
        """
        prompts = search.prompts
        trials = search.step(stop=lambda: budget.exceeded() is not None)
        if trials and trainer.is_global_zero:
            assert search.state is not None
            assert search.loss_before is not None
            first = len(search.state.trials) - len(trials)
            tried = tried_prompts(trials, step=step - 1, first=first, prompts=prompts, loss=search.loss_before)
            show_trials(Path(trainer.default_root_dir), trainer.loggers, tried)
        for trial in trials:
            kept = ", kept" if trial.kept else ""
            log.info("step %s: %s, held-out loss %.4g%s", step, ", ".join(trial.changes), trial.loss, kept)
        return any(trial.kept for trial in trials)


def show_errors(run_dir: Path, loggers: Iterable[object], shown: Shown) -> None:
    """Writes the errors of a step into the run's folder, and logs them to W&B; by the first process. Raises OSError.

    Args:
        run_dir: the run's folder.
        loggers: of the trainer.
        shown: what `ErrorHistory.take` gave.
    """
    drawn = len(shown.mean.messages) <= _MOST_DRAWN
    write_blame(run_dir, shown.step, graph_svg(shown.mean) if drawn else None)
    step = shown.step.step
    for logger in loggers:
        if isinstance(logger, TrackedRun):
            if drawn:
                logger.log_figure(GRAPH, graph_image(shown.mean), step)
            if shown.step.episodes:
                logger.log_page(EPISODES, episodes_page(shown.step), step)


def show_trials(run_dir: Path, loggers: Iterable[object], tried: Sequence[TriedPrompt]) -> None:
    """Adds tried prompts to the run's list, and logs all of it to W&B; by the first process. Raises OSError.

    Args:
        run_dir: the run's folder.
        loggers: of the trainer.
        tried: prompts in their order.
    """
    if not tried:
        return
    note_prompts(run_dir, tried)
    for logger in loggers:
        if isinstance(logger, TrackedRun):
            rows = [_row(each) for each in read_prompts(run_dir)[-_MOST_ROWS:]]
            logger.log_growing_table(PROMPTS, _COLUMNS, rows, tried[-1].step)


def _row(tried: TriedPrompt) -> tuple[object, ...]:
    changed = marked(shortened(difference(tried.before, tried.after)))
    losses = tried.loss, tried.loss_before
    return tried.step, tried.agent, *losses, tried.kept, tried.before, tried.after, changed


def tried_prompts(
    trials: Sequence[Trial], *, step: int, first: int, prompts: Mapping[str, str], loss: float
) -> list[TriedPrompt]:
    """An update's trials by agent, each against the prompts that it was compared with.

    Args:
        trials: in their order.
        step: optimizer step, from 0.
        first: number of the first of the trials.
        prompts: before the update.
        loss: held-out loss of these.
    """
    prompts, found = dict(prompts), list[TriedPrompt]()
    for number, trial in enumerate(trials, start=first):
        for agent, after in trial.changes.items():
            found.append(
                TriedPrompt(
                    step=step,
                    trial=number,
                    agent=agent,
                    kept=trial.kept,
                    loss_before=loss,
                    loss=trial.loss,
                    before=prompts[agent],
                    after=after,
                )
            )
        if trial.kept:
            prompts, loss = {**prompts, **trial.changes}, trial.loss
    return found


def episode_of(attribution: Attribution, config: TrackingConfig) -> Episode:
    """An attribution as it is shown: without secrets, long texts cut down to the parts with the most credit."""
    prompts = {each.step: each for each in attribution.prompts}
    texts: list[CreditedText] = []
    for each in attribution.messages:
        texts += [_text(f"prompt of {each.step}", prompts[each.step])] if each.step in prompts else []
        texts.append(_text(each.step, each))
    order = sorted(range(len(texts)), key=lambda place: -abs(texts[place].credit))
    walk = attribution.trajectories[0].steps if attribution.trajectories else (LOSS,)
    whole = cleaned(
        Episode(
            id=attribution.id,
            loss=attribution.loss,
            loss_text=attribution.loss_text,
            walk=walk if len(walk) <= _MOST_TEXTS else (*walk[:_MOST_TEXTS], "..."),
            own={agent.name: agent.own for agent in attribution.agents},
            texts=tuple(texts[place] for place in sorted(order[:_MOST_TEXTS])),
            left_out=max(0, len(texts) - _MOST_TEXTS),
        )
    )
    rooms = _rooms([len(text.text) for text in whole.texts], config.max_characters)
    told, most = whole.loss_text, config.max_characters // 4
    return replace(
        whole,
        loss_text=told if len(told) <= most else told[:most] + " ...",
        texts=tuple(_cut(text, room) for text, room in zip(whole.texts, rooms, strict=True)),
    )


def _text(name: str, message: MessageCredit) -> CreditedText:
    return CreditedText(
        name=name, text=message.text, credit=message.credit, spans=message.spans, credits=message.token_credits
    )


def _rooms(lengths: Sequence[int], most: int) -> list[int]:
    """Characters for each text: short ones are whole, and long ones share the rest alike."""
    rooms, left = [0] * len(lengths), most
    for count, place in enumerate(sorted(range(len(lengths)), key=lambda place: lengths[place])):
        rooms[place] = min(lengths[place], left // (len(lengths) - count))
        left -= rooms[place]
    return rooms


def _cut(text: CreditedText, room: int) -> CreditedText:
    """So many characters of a text, around its largest credit; parts without text are left out."""
    start, stop = 0, len(text.text)
    if stop > room:
        top = max(range(len(text.spans)), key=lambda place: abs(text.credits[place]), default=None)
        start = 0 if top is None else max(0, min(sum(text.spans[top]) // 2 - room // 2, stop - room))
        stop = start + room
    before, after = "... " * (start > 0), " ..." * (stop < len(text.text))
    inside = [(max(a, start), min(b, stop), c) for (a, b), c in zip(text.spans, text.credits, strict=True)]
    shift = len(before) - start
    # Four digits are more than anybody sees.
    shown = [(a + shift, b + shift, float(f"{c:.4g}")) for a, b, c in inside if a < b]
    return replace(
        text,
        text=before + text.text[start:stop] + after,
        spans=tuple((a, b) for a, b, _ in shown),
        credits=tuple(c for _, _, c in shown),
    )
