"""GBC as a LightningModule: hooks and logging. What a step does is in `worker`; what saves and stops are callbacks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from lightning.pytorch import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import NotRequired, TypedDict, override

from framework.core.collectives import mean_over_ranks
from framework.core.devices import tensor_on
from framework.core.errors import CheckpointError, ConfigError
from framework.data.loading.batch import EpisodeBatch
from framework.data.module import ShardDataModule
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.execution.budget import Budget, BudgetConfig, BudgetState
from framework.gbc.execution.runner import RunOptions, Task
from framework.gbc.graph.spec import Graph
from framework.gbc.graph.unroll import unroll
from framework.gbc.language_models.agent_parameters import AgentParameters
from framework.gbc.training.best import ADAPTERS, GRAPH, SOFT_PROMPTS, SaveBest
from framework.gbc.training.budget_stop import BudgetStop, end_training
from framework.gbc.training.failure_limit import FailureConfig, FailureLimit, Failures, FailuresState
from framework.gbc.training.metrics import (
    credit_metrics,
    episode_metrics,
    gradient_metrics,
    on_host,
    search_metrics,
    validation_metrics,
)
from framework.gbc.training.parameters import (
    AgentParametersModule,
    SoftConfig,
    make_parameters,
    save_parameters,
    with_gradients,
)
from framework.gbc.training.prompt_steps import SearchConfig, SearchState, TrainingSearch
from framework.gbc.training.prompt_tracking import EpisodeTracker, TrackingConfig
from framework.gbc.training.rollouts import EpisodeResult, mean_loss, read_spread, split_episodes, weighted_loss
from framework.gbc.training.setup import Declared, check_data, load_system, make_search, save_declared
from framework.gbc.training.worker import all_episodes, all_errors, make_worker
from framework.training.length import total_steps
from framework.training.optimizer import ClippingModule, OptimizerConfig, build_optimizer, build_schedule, steps_itself
from framework.training.strategies.placement import placement_of

KEY = "gbc"
"""Of the state in a checkpoint."""
_FORMAT = 1


class _State(TypedDict):
    format: int
    prompts: dict[str, str]
    best_loss: NotRequired[float | None]
    search: SearchState | None
    budget: BudgetState
    failures: FailuresState


class GBCModule(ClippingModule):
    """Trains the prompts of a system of agents (arXiv 2606.28187) on episodes.

    Args:
        graph: YAML file of the graph, or its content.
        models: YAML file of the models, or its content; the strategy says where local ones run.
        loss: of a run: exact_match, slot_loss or an import path such as package.module:function; or class_path and
            init_args of what makes one.
        tasks: of an episode, such a function; by default an episode is a task.
        run: how the graph runs.
        attribution: how errors are attributed.
        attribute_every_n_steps: optimizer steps between those whose errors are attributed to agents; 0 for never.
        search: proposals of other prompts; none by default.
        soft: soft prompts, gates and adapters; none by default.
        optimizer: of these.
        budget: bounds of what is spent.
        failures: how many episodes may fail.
        tracking: what of the attributed errors is shown.
        seed: of first soft prompts, of sampling models and of proposals.
    """

    steering: AgentParametersModule  # the name that its checkpoints have

    def __init__(
        self,
        *,
        graph: Declared,
        models: Declared,
        loss: Declared,
        tasks: Declared | None = None,
        run: RunOptions = RunOptions(),
        attribution: AttributionOptions = AttributionOptions(),
        attribute_every_n_steps: int = 1,
        search: SearchConfig | None = None,
        soft: SoftConfig | None = None,
        optimizer: OptimizerConfig = OptimizerConfig(learning_rate=0.01, weight_decay=0.0, warmup_steps=0),
        budget: BudgetConfig = BudgetConfig(),
        failures: FailureConfig = FailureConfig(),
        tracking: TrackingConfig = TrackingConfig(),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if attribute_every_n_steps < 0:
            raise ConfigError(f"attribute_every_n_steps {attribute_every_n_steps}", hint="use 0 for never, or more")
        self.graph_source, self.models_source = graph, models
        self.loss_source, self.tasks_source = loss, tasks
        self.run_options, self.attribution, self.attribute_every = run, attribution, attribute_every_n_steps
        self.search_config, self.soft_config, self.optimizer_config, self.seed = search, soft, optimizer, seed
        self.budget, self.failures = Budget(budget), Failures(failures)
        self.best = SaveBest(self._write_prompts, self._write_parameters)
        self.tracker = EpisodeTracker(tracking)
        self.search: TrainingSearch | None = None
        self._held_out: list[tuple[EpisodeResult, Task]] | None = None

    def configure_model(self) -> None:
        if hasattr(self, "steering"):
            return
        placement, soft, search = placement_of(self), self.soft_config, self.search_config
        if placement.device.type == "meta":
            self.steering = AgentParametersModule(AgentParameters(soft={}, gates={}))  # of a plan, without files
            return
        others = [search.writer] if search is not None and search.writer is not None else []
        system = self.system = load_system(self.graph_source, self.models_source, placement, *others)
        self.worker = make_worker(
            system,
            loss=self.loss_source,
            tasks=self.tasks_source,
            soft=soft,
            run=self.run_options,
            attribution=self.attribution,
            examples=search is not None and search.proposer == "opro",
            budget=self.budget,
            seed=self.seed,
        )
        self.tracker.start([step.name for step in unroll(system.graph).steps])
        trained = None if soft is None else soft.local_model(system.graph, system.models)
        self.steering = make_parameters(system.graph, trained, soft, placement, seed=self.seed)
        drifts = soft is not None
        self.search = make_search(search, system, seed=self.seed, evaluate=self._held_out_loss, loss_drifts=drifts)

    def configure_callbacks(self) -> list[Callback]:
        return [self.best, self.tracker, FailureLimit(self.failures), BudgetStop(self.budget)]

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        check_data(data, searches=stage == "fit" and self.search_config is not None)

    @property
    def graph(self) -> Graph:
        """The system with its best prompts so far."""
        return self.system.graph if self.search is None else self.system.graph.with_prompts(self.search.prompts)

    def on_train_start(self) -> None:
        self.worker.start_clock()

    def training_step(self, batch: EpisodeBatch, batch_idx: int) -> Float[Tensor, ""]:
        values = self.steering()
        agent_parameters, worker = self._detached(values), self.worker
        attributes = bool(self.attribute_every) and self.global_step % self.attribute_every == 0
        with worker.synchronized(agent_parameters):
            results = worker.run_episodes(self.graph, worker.tasks(batch), epoch=batch.epoch, training=True)
            results, errors = worker.attribute(results) if attributes else (results, [])
            results, found = worker.gradients(results, agent_parameters, num_episodes=len(batch))
        ranks = worker.exchange(results, errors, found)
        results, errors = all_episodes(ranks), all_errors(ranks)
        self.failures.note_results(results)
        if self.search is not None:
            self.search.note(errors)
        self.tracker.history.note(self.global_step, errors, worker.attributed)
        metrics = episode_metrics(results, self.failures)
        if self.soft_config is None:
            loss = tensor_on(self.device, mean_loss(results), torch.float32)
        else:
            metrics |= gradient_metrics(ranks, num_tasks=len(results))
            loss = mean_over_ranks(found.value)
            self.log("loss/target_nats_per_token", loss, batch_size=1)
        if attributes:
            metrics |= credit_metrics(errors, self.system.graph.nodes)
        self.log_dict(on_host(metrics), batch_size=1)
        # Where nothing is trained, the one number that nothing uses has no gradient.
        return with_gradients(loss, values, found.gradients or [torch.zeros(())])

    def validation_step(self, batch: EpisodeBatch, batch_idx: int) -> None:
        results = self.worker.run_shared(self.graph, self.worker.tasks(batch), self._detached(self.steering()))
        for name, value in validation_metrics(results).items():
            self.log(name, value, prog_bar=name == "validation/success", batch_size=len(batch))

    def _detached(self, values: Sequence[Float[Tensor, "..."]]) -> AgentParameters:
        return self.steering.named([value.detach() for value in values])

    @torch.no_grad()
    def _held_out_loss(self, graph: Graph) -> float:
        """Mean over the held-out episodes of the search."""
        assert self.search_config is not None
        if self._held_out is None:
            # Lightning's Trainer declares no datamodule.
            data = cast("ShardDataModule", self.trainer.datamodule)  # pyright: ignore
            assert data.validation_set is not None
            numbers, episodes = read_spread(data.validation_set, self.search_config.num_held_out)
            self._held_out = split_episodes(numbers, episodes, self.worker.tasks_of)
        results = self.worker.run_shared(graph, self._held_out, self._detached(self.steering()))
        return weighted_loss(results, failed_loss=self.search_config.failed_loss)

    @override
    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], object] | None = None,
    ) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        # Before the callbacks of the batch's end: a checkpoint of this step has all of it.
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch:
            self._end_step(self.global_step + 1)

    def _end_step(self, step: int) -> None:
        search = self.search
        if search is not None:
            if step % search.every_n_steps == 0 and not search.finished:
                kept = self.tracker.step_search(self.trainer, search, step=step, budget=self.budget)
                if kept:
                    self.best.start_anew(self.trainer, step=step)
            if search.state is not None:
                self.log("search/held_out_loss", search.state.loss, prog_bar=True, batch_size=1)
                self.log_dict(on_host(search_metrics(search)), batch_size=1)
            if search.finished and self.soft_config is None:
                end_training(self.trainer, "nothing is left to try, or the goal is reached")
        self.tracker.show_errors(self.trainer, step)
        self.log_dict(on_host(self.budget.metrics()), batch_size=1)
        self.budget.start_step()

    def _write_prompts(self, folder: Path) -> None:
        save_declared(folder / GRAPH, self.system.declared, self.graph.prompts)

    @torch.no_grad()
    def _write_parameters(self, folder: Path) -> bool:
        values = self.steering()
        if self.soft_config is not None and self.trainer.is_global_zero:
            local = self.soft_config.local_model(self.system.graph, self.system.models)
            save_parameters(folder / SOFT_PROMPTS, folder / ADAPTERS, self._detached(values), local)
        return self.soft_config is not None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = build_optimizer(self.steering, self.optimizer_config, fused=steps_itself(self.trainer))
        schedule = build_schedule(optimizer, self.optimizer_config, total_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        checkpoint[KEY] = _State(
            format=_FORMAT,
            prompts=self.graph.prompts,
            best_loss=self.best.loss,
            search=None if self.search is None else self.search.state_dict(),
            budget=self.budget.state_dict(),
            failures=self.failures.state_dict(),
        )

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        state = cast(_State | None, checkpoint.get(KEY))
        if state is None or state.get("format") != _FORMAT:
            raise CheckpointError("the checkpoint is not of GBC", hint="choose another run folder or checkpoint")
        if state["prompts"].keys() != self.system.graph.prompts.keys():
            problem = f"the checkpoint's agents are {', '.join(state['prompts'])}"
            raise CheckpointError(problem, hint="use the graph of that run, or another --run.dir")
        self.best.loss = state.get("best_loss")
        self.budget.load_state_dict(state["budget"])
        self.failures.load_state_dict(state["failures"])
        if self.search is not None and state["search"] is not None:
            self.search.load_state_dict(state["search"])
