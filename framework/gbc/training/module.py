"""GBC as a LightningModule: hooks and logging; what a step does is in `training`."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from framework.core.collectives import broadcast_object, rank_and_size
from framework.core.errors import CheckpointError, ConfigError
from framework.core.io import atomic_write
from framework.data.loading.batch import EpisodeBatch
from framework.data.module import ShardDataModule
from framework.gbc.attribution.results import AgentCredit, AttributionOptions
from framework.gbc.execution.budget import Budget, BudgetConfig, Meter
from framework.gbc.execution.loading import load_loss
from framework.gbc.execution.runner import RunOptions, Task
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.unroll import unroll
from framework.gbc.graph.yaml_config import make_function
from framework.gbc.language_models.agent_parameters import AgentParameters, write_steering
from framework.gbc.prompt_search.state import Trial
from framework.gbc.tracking.prompt_history import forget_prompts
from framework.gbc.training.failure_limit import FailureConfig, Failures
from framework.gbc.training.parameters import AgentParametersModule, SoftConfig, make_parameters, with_gradients
from framework.gbc.training.prompt_steps import AttributedError, PromptSearch, SearchConfig, mean_blame
from framework.gbc.training.prompt_tracking import (
    BlameHistory,
    Shown,
    TrackingConfig,
    show_blame,
    show_trials,
    tried_prompts,
)
from framework.gbc.training.rollouts import (
    EpisodeResult,
    failed_share,
    mean_loss,
    one_task,
    split_episodes,
    success_share,
)
from framework.gbc.training.setup import Declared, load_system, make_proposer, save_declared, target_of
from framework.gbc.training.worker import RankResult, RolloutWorker, blamed_by_all, played_by_all
from framework.training.optimizer import OptimizerConfig, build_optimizer, build_schedule
from framework.training.strategies.placement import placement_of

KEY = "gbc"
"""Of the state in a checkpoint."""
BEST, GRAPH, SOFT_PROMPTS, ADAPTERS = "best", "graph.yaml", "soft_prompts.safetensors", "adapters"
"""The folder in the run's with the best, and what is in it."""
VALIDATION, FAILURES = "validation.json", "failures.jsonl"
"""In that folder, when the best was found; in the run's, the list of what failed."""
_FORMAT = 1

log = logging.getLogger(__name__)


class GBCModule(LightningModule):
    """Trains the prompts of a system of agents (arXiv 2606.28187) on episodes.

    Args:
        graph: YAML file of the graph, or its content.
        models: YAML file of the models, or its content; the strategy says where local ones run.
        loss: of a run: exact_match, slot_loss or an import path such as package.module:function; or class_path and
            init_args of what makes one.
        tasks: of an episode, such a function; by default an episode is a task.
        run: how the graph runs.
        attribution: how blame is found.
        attribute_every_n_steps: optimizer steps between those whose errors are blamed on agents; 0 for none.
        search: proposals of other prompts; none by default.
        soft: soft prompts, gates and adapters; none by default.
        optimizer: of these.
        budget: bounds of what is spent.
        failures: how many episodes may fail.
        tracking: what of the blame is shown.
        seed: of first soft prompts, of sampling models and of proposals.
    """

    sample_unit = "task"
    steering: AgentParametersModule  # the name that its checkpoints have

    def __init__(
        self,
        *,
        graph: Declared,
        models: Declared,
        loss: Declared,
        tasks: Declared | None = None,
        run: RunOptions = RunOptions(),  # noqa: B008 - frozen
        attribution: AttributionOptions = AttributionOptions(),  # noqa: B008
        attribute_every_n_steps: int = 1,
        search: SearchConfig | None = None,
        soft: SoftConfig | None = None,
        optimizer: OptimizerConfig = OptimizerConfig(learning_rate=0.01, weight_decay=0.0, warmup_steps=0),  # noqa: B008
        budget: BudgetConfig = BudgetConfig(),  # noqa: B008
        failures: FailureConfig = FailureConfig(),  # noqa: B008
        tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
        seed: int = 0,
    ) -> None:
        super().__init__()
        if attribute_every_n_steps < 0:
            raise ConfigError(f"attribute_every_n_steps {attribute_every_n_steps}", hint="use 0 for never, or more")
        self.graph_source, self.models_source = graph, models
        self.loss_source, self.tasks_source = loss, tasks
        self.run_options, self.attribution, self.attribute_every = run, attribution, attribute_every_n_steps
        self.search_config, self.soft_config, self.optimizer_config = search, soft, optimizer
        self.seed = seed
        self.budget_config, self.budget, self.failures = budget, Budget(budget), Failures(failures)
        self.tracking = tracking
        self.search: PromptSearch | None = None
        self._best_loss: float | None = None
        self._held_out: list[tuple[EpisodeResult, Task]] | None = None

    def configure_model(self) -> None:
        if hasattr(self, "steering"):
            return
        placement, soft, search = placement_of(self), self.soft_config, self.search_config
        if placement.device.type == "meta":
            # A plan, without files.
            self.steering = AgentParametersModule(AgentParameters(soft={}, gates={}))
            return
        others = [search.writer] if search is not None and search.writer is not None else []
        system = self.system = load_system(self.graph_source, self.models_source, placement, *others)
        self.work = RolloutWorker(
            system,
            judge=load_loss(self.loss_source),
            tasks_of=one_task if self.tasks_source is None else make_function(self.tasks_source),
            soft=soft,
            target=None if soft is None else target_of(soft.target),
            run=self.run_options,
            attribution=self.attribution,
            examples=search is not None and search.proposer == "opro",
            meter=Meter(self.budget_config.prices),
            seed=self.seed,
        )
        self.history = BlameHistory(self.tracking, [step.name for step in unroll(system.graph).steps])
        trained = None if soft is None else soft.local_model(system.graph, system.models)
        self.steering = make_parameters(system.graph, trained, soft, seed=self.seed).to(placement.device)
        if placement.shard is not None:
            placement.shard(self.steering, (), False)
            self.steering.tag_parameters()
        if search is not None:
            self.search = PromptSearch(
                system.graph,
                make_proposer(search, system.models),
                search,
                seed=self.seed,
                evaluate=self._held_out_loss,
                together=system.lockstep.together,
                loss_drifts=soft is not None,
            )

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, ShardDataModule) and data.kind != "episodes":
            raise ConfigError(f"data.kind is {data.kind}", hint="train agents on episodes")
        held_out = isinstance(data, ShardDataModule) and data.validation is not None
        if stage == "fit" and self.search_config is not None and not held_out:
            hint = "give data.validation, the episodes that decide which prompts are kept"
            raise ConfigError("model.search without held-out episodes", hint=hint)

    @property
    def graph(self) -> Graph:
        """The system with its best prompts so far."""
        return self.system.graph if self.search is None else self.system.graph.with_prompts(self.search.prompts)

    def training_step(self, batch: EpisodeBatch, batch_idx: int) -> Tensor:
        values = self.steering()
        agent_parameters, work = self._detached(values), self.work
        with work.together(agent_parameters):
            played = work.play(self.graph, self._tasks(batch), epoch=batch.epoch)
            blamed: list[AttributedError] = []
            if self._attributes:
                played, blamed = work.blame(played)
            played, flow = work.flow(played, agent_parameters, num_episodes=len(batch))
        shares = self._exchanged(work.exchange(played, blamed, flow))
        everyone, errors = played_by_all(shares), blamed_by_all(shares)
        self._note_failures(everyone)
        if self.search is not None:
            self.search.note(errors)
        self.history.note(self.global_step, errors, work.attributed)
        self._log_batch(everyone, errors, shares)
        self.failures.check()
        if self.soft_config is None:
            return with_gradients(torch.tensor(mean_loss(everyone), device=self.device), values, [torch.zeros(())])
        value = sum(share.value for share in shares) / len(shares)
        return with_gradients(torch.tensor(value, device=self.device), values, flow.gradients)

    @property
    def _attributes(self) -> bool:
        """Whether errors of this step are blamed on agents."""
        return bool(self.attribute_every) and self.global_step % self.attribute_every == 0

    def validation_step(self, batch: EpisodeBatch, batch_idx: int) -> None:
        rank, size = rank_and_size()
        with self.work.together(self._detached(self.steering())):
            played = self.work.play(self.graph, self._tasks(batch)[rank::size], epoch=0)
        everyone = played_by_all(self._exchanged(self.work.exchange(played)))
        self.log("validation/loss", mean_loss(everyone), batch_size=len(batch))
        self.log("validation/success", success_share(everyone), prog_bar=True, batch_size=len(batch))
        self.log("validation/failed_share", failed_share(everyone), batch_size=len(batch))

    def _tasks(self, batch: EpisodeBatch) -> list[tuple[EpisodeResult, Task]]:
        return split_episodes(batch.indices.tolist(), batch.episodes, self.work.tasks_of)

    def _detached(self, values: Sequence[Tensor]) -> AgentParameters:
        return self.steering.named([value.detach() for value in values])

    def _exchanged(self, shares: list[RankResult]) -> list[RankResult]:
        """The shares, their spending booked."""
        self.budget.add([each.spent for each in shares], wall_seconds=max(each.seconds for each in shares))
        return shares

    @torch.no_grad()
    def _held_out_loss(self, graph: Graph) -> float:
        """Mean over the held-out episodes, which the processes share among them."""
        rank, size = rank_and_size()
        assert self.search_config is not None
        with self.work.together(self._detached(self.steering())):
            played = self.work.play(graph, self._held_out_tasks()[rank::size], epoch=0)
        everyone = played_by_all(self._exchanged(self.work.exchange(played)))
        failed = self.search_config.failed_loss
        total = sum(each.weight * (failed if each.loss is None else each.loss.value) for each in everyone)
        return total / sum(each.weight for each in everyone)

    def _held_out_tasks(self) -> list[tuple[EpisodeResult, Task]]:
        if self._held_out is None:
            assert self.search_config is not None
            shards = self.trainer.datamodule.validation_set  # pyright: ignore[reportAttributeAccessIssue]
            count = min(self.search_config.num_held_out, len(shards))
            numbers = [row * len(shards) // count for row in range(count)]
            episodes = [json.loads(shards.read(number)[0]) for number in numbers]
            self._held_out = split_episodes(numbers, episodes, self.work.tasks_of)
        return self._held_out

    def _note_failures(self, everyone: Sequence[EpisodeResult]) -> None:
        lines = []
        for each in everyone:
            self.failures.note(each.failure)
            if each.failure is not None:
                entry = {"step": self.global_step, "sample": each.sample, "task": each.id, "reason": each.failure}
                lines.append(json.dumps(entry) + "\n")
        if lines and self.trainer.is_global_zero:
            path = Path(self.trainer.default_root_dir) / FAILURES
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as stream:
                stream.writelines(lines)

    def _log_batch(
        self, everyone: Sequence[EpisodeResult], errors: Sequence[AttributedError], shares: Sequence[RankResult]
    ) -> None:
        """What all processes know alike."""
        found = {
            "loss/verbal": mean_loss(everyone),
            "success/train": success_share(everyone),
            "failures/count": float(self.failures.failed),
            "failures/share": self.failures.share,
        }
        if self.soft_config is not None:
            found["loss/target_nats_per_token"] = sum(share.value for share in shares) / len(shares)
            found["soft/flowing_share"] = sum(share.flowing for share in shares) / len(shares)
            found["soft/trained_share"] = sum(share.num_traces for share in shares) / len(everyone)
        # Where there are no errors, nobody is to blame: a value that is not given would stay what it was.
        none = [AgentCredit(name=name, through=0.0, own=0.0, walk=0.0) for name in self.system.graph.nodes]
        for credit in [*none, *mean_blame(errors)] if self._attributes else ():
            for kind in ("own", "through", "walk"):
                found[f"credit_{kind}_by_agent/{credit.name}"] = getattr(credit, kind)
        self.log_dict(found, batch_size=1)

    def optimizer_step(self, epoch: int, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(epoch, batch_idx, *args, **kwargs)
        # Before the callbacks of the batch's end: a checkpoint of this step has all of it.
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch:
            self._end_step(self.global_step + 1)

    def _end_step(self, step: int) -> None:
        config, search = self.search_config, self.search
        if config is not None and search is not None and step % config.every_n_steps == 0 and not search.finished:
            prompts = search.prompts
            trials = search.update(stop=lambda: self.budget.exceeded() is not None)
            self._show_trials(trials, step, prompts)
            for trial in trials:
                kept = ", kept" if trial.kept else ""
                log.info("step %s: %s, held-out loss %.4g%s", step, ", ".join(trial.changes), trial.loss, kept)
            if any(trial.kept for trial in trials):
                # What is trained belongs to the prompts: with others its best is to be found anew.
                self._best_loss = None
                self._save_prompts()
                self._save_steering(step)
        if search is not None and search.state is not None:
            self.log("search/held_out_loss", search.state.loss, prog_bar=True, batch_size=1)
            self.log("search/trials", float(len(search.state.trials)), batch_size=1)
            self.log("search/failed_proposals", float(search.problems), batch_size=1)
        self._show_blame(self.history.take(step))
        self.log_dict(self.budget.metrics(), batch_size=1)
        self.budget.start_step()
        self._stop_if(self.budget.exceeded())
        if search is not None and search.finished and self.soft_config is None:
            self._stop_if("nothing is left to try, or the goal is reached")

    def _show_trials(self, trials: Sequence[Trial], step: int, prompts: Mapping[str, str]) -> None:
        search = self.search
        if trials and self.trainer.is_global_zero:
            assert search is not None
            assert search.state is not None
            assert search.loss_before is not None
            first = len(search.state.trials) - len(trials)
            tried = tried_prompts(trials, step=step - 1, first=first, prompts=prompts, loss=search.loss_before)
            show_trials(Path(self.trainer.default_root_dir), self.trainer.loggers, tried)

    def _show_blame(self, shown: Shown | None) -> None:
        if shown is not None and self.trainer.is_global_zero:
            show_blame(Path(self.trainer.default_root_dir), self.trainer.loggers, shown)

    def _stop_if(self, reason: str | None) -> None:
        if reason is not None and not self.trainer.should_stop:
            log.info("training ends: %s", reason)
            self.trainer.should_stop = True

    def _save_prompts(self) -> None:
        """The best prompts as a graph; by the first process."""
        if self.trainer.is_global_zero:
            path = Path(self.trainer.default_root_dir) / BEST / GRAPH
            save_declared(path, self.system.declared, self.graph.prompts)

    def on_train_start(self) -> None:
        self.work.start_clock()
        if self.trainer.is_global_zero:
            forget_prompts(Path(self.trainer.default_root_dir), from_step=self.global_step)
        self._recall_validation()
        self._stop_if(self.budget.exceeded())

    def on_train_end(self) -> None:
        self._show_blame(self.history.take())
        self._save_prompts()
        if self._best_loss is None:
            self._save_steering(self.global_step)

    def on_validation_end(self) -> None:
        if self.trainer.sanity_checking or self.trainer.state.fn != TrainerFn.FITTING:
            return
        found = self.trainer.callback_metrics
        loss, failed = float(found["validation/loss"]), float(found["validation/failed_share"])
        # The loss is of those that did not fail: what makes tasks fail must not look good.
        loss = (1 - failed) * loss + failed
        if self._best_loss is None or loss < self._best_loss:
            self._best_loss = loss
            self._save_steering(self.global_step)

    def _recall_validation(self) -> None:
        """What a validation found after the checkpoint of its step was made: it is not made again."""
        path, found = Path(self.trainer.default_root_dir) / BEST / VALIDATION, None
        if self.trainer.is_global_zero and path.is_file():
            found = json.loads(path.read_text())
        found = broadcast_object(found)
        if found is not None and found["step"] == self.global_step:
            self._best_loss = found["loss"]

    @torch.no_grad()
    def _save_steering(self, step: int) -> None:
        """Soft prompts, gates and adapters as they are now, after a step; by the first process."""
        values = self.steering()
        if self.soft_config is None or not self.trainer.is_global_zero:
            return
        agent_parameters, folder = self._detached(values), Path(self.trainer.default_root_dir) / BEST
        if agent_parameters.soft or agent_parameters.gates:
            write_steering(folder / SOFT_PROMPTS, agent_parameters.soft, agent_parameters.gates)
        local = self.soft_config.local_model(self.system.graph, self.system.models)
        local.adapters.write(folder / ADAPTERS, agent_parameters.adapters)
        with atomic_write(folder / VALIDATION) as stream:
            stream.write(json.dumps({"step": step, "loss": self._best_loss}).encode())

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.steering, self.optimizer_config)
        schedule = build_schedule(optimizer, self.optimizer_config, self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = {
            "format": _FORMAT,
            "prompts": self.graph.prompts,
            "best_loss": self._best_loss,
            "search": None if self.search is None else self.search.state_dict(),
            "budget": self.budget.state_dict(),
            "failures": self.failures.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state: Mapping[str, Any] | None = checkpoint.get(KEY)
        if state is None or state.get("format") != _FORMAT:
            raise CheckpointError("the checkpoint is not of GBC", hint="choose another run folder or checkpoint")
        if state["prompts"].keys() != self.system.graph.prompts.keys():
            problem = f"the checkpoint's agents are {', '.join(state['prompts'])}"
            raise CheckpointError(problem, hint="use the graph of that run, or another --run.dir")
        self._best_loss = state.get("best_loss")
        self.budget.load_state_dict(state["budget"])
        self.failures.load_state_dict(state["failures"])
        if self.search is not None and state["search"] is not None:
            self.search.load_state_dict(state["search"])
