"""What a training of agents needs of its devices: counted from the graph and the shapes of the language models (ours).

Nothing is loaded but a model's `config.json`. Sizes of texts are bounds, not expectations: every step of the graph
runs, every output is as long as `max_new_tokens` allows, a prompt has a token for every four letters, and a task's own
texts have `_TASK_TOKENS`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Size, nn
from transformers import PreTrainedModel

from framework.core.errors import ConfigError
from framework.core.serialization import JsonDict
from framework.gbc.execution.loading import read_model_configs
from framework.gbc.execution.runner import RunOptions
from framework.gbc.graph.spec import Agent, parse_graph, reads_of
from framework.gbc.graph.unroll import PlannedStep, unroll
from framework.gbc.graph.yaml_config import read_yaml
from framework.gbc.language_models.local import LocalModelConfig
from framework.gbc.language_models.transformers_compat import decoder_layers, hidden_size, layer_widths, meta_model
from framework.tracking.devices import GIB
from framework.training.planning import Memory, Plan, PlannedRun
from framework.training.strategies.backend import named_backend
from framework.training.strategies.workload import FLOAT_BYTES, Workload, node_bytes, ring_bytes

_LETTERS_PER_TOKEN = 4
_TASK_TOKENS = 256
_RUNTIME = 1 * GIB
"""What the driver, the communication library and torch's allocator take besides."""
_KEPT_VALUES = 3
"""That a checkpoint holds of each trained value: itself and AdamW's two moments."""
_PASS_TOKENS = 16384
"""Tokens with gradients in a pass of the attribution, where the recipe leaves it out."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Forward and backward passes over tasks besides their generation, and what they keep.

    Attributes:
        trained_tasks: tasks whose whole runs are kept at once to train soft prompts and adapters; 0 trains none.
        attributed_tokens: tokens with gradients in a pass of the attribution; 0 attributes nothing.
        checkpointing: the attribution keeps the inputs of layers alone.
    """

    trained_tasks: int
    attributed_tokens: int
    checkpointing: bool

    @property
    def count(self) -> int:
        """Passes over every task."""
        return bool(self.trained_tasks) + bool(self.attributed_tokens)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Lengths in tokens.

    Attributes:
        read: by the step.
        said: by it.
    """

    read: int
    said: int


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What a local language model costs.

    Attributes:
        values: of all parameters.
        layer_values: of those in decoder layers.
        largest_layer: values of the largest of them.
        value_bytes: of a weight.
        cache_bytes: that a token takes in the key-value cache.
        kept_bytes: that a token keeps for the backward pass.
        input_bytes: of these, those of the layers' inputs.
    """

    values: int
    layer_values: int
    largest_layer: int
    value_bytes: int
    cache_bytes: int
    kept_bytes: int
    input_bytes: int


def plan_recipe(model: Mapping[str, object], run: PlannedRun) -> Plan:
    """What a recipe's run needs; a sample is a task. Agents on a server cost nothing here.

    Operations: the answers' generation, and a forward and a backward pass to the inputs for the training of soft
    prompts, gates and adapters, and for the attribution where every step has one. `sketched` attribution takes
    some backward passes more, and `finegrained` one for each output token, which are not counted.

    Args:
        model: the recipe's `model.init_args`.
        run: strategy, devices and batch.

    Raises:
        ConfigError: a graph, models or a config.json that cannot be read; no agent with a local model.
    """
    declared = model["graph"]
    source = declared if isinstance(declared, str) else "model.graph"
    graph = parse_graph(read_yaml(declared) if isinstance(declared, str) else cast("JsonDict", declared), source=source)
    configs = read_model_configs(cast("str | Mapping[str, object]", model["models"]))
    local = {name: each for name, each in configs.items() if isinstance(each, LocalModelConfig)}
    soft = cast("JsonDict | None", model.get("soft"))
    texts = _texts(unroll(graph).steps, num_soft=0 if soft is None else int(soft["num_tokens"]))
    used = {agent.model for agent in graph.agents if agent.model in local}
    if not used:
        raise ConfigError(f"no agent of {source} has a local model", hint="servers need no plan")
    read = {name: _meta_model(local[name].path) for name in sorted(used)}
    shapes = {name: _shape_of(each, local[name].dtype) for name, each in read.items()}
    steps = [(local[agent.model], shapes[agent.model], text) for agent, text in texts if agent.model in shapes]
    return _plan(run, steps, list(shapes.values()), _trained_values(soft, graph.agents, read), _passes(model))


def read_shape(config: LocalModelConfig) -> ModelShape:
    """The shape of a model, from its config.json alone.

    Raises:
        ConfigError: no such file, or an architecture that transformers does not know.
    """
    return _shape_of(_meta_model(config.path), config.dtype)


def _shape_of(model: PreTrainedModel, dtype: str) -> ModelShape:
    layers = [sum(p.numel() for p in layer.parameters()) for layer in decoder_layers(model)]
    width = _BYTES[dtype]
    widths = layer_widths(model)
    # Inputs of norms and of matrix products, queries, keys, values, and three of the gated layer's width.
    kept = 8 * widths.hidden + 2 * widths.keys + 3 * widths.inner
    return ModelShape(
        values=sum(p.numel() for p in cast(nn.Module, model).parameters()),
        layer_values=sum(layers),
        largest_layer=max(layers),
        value_bytes=width,
        cache_bytes=2 * len(layers) * widths.keys * width,
        kept_bytes=len(layers) * kept * width,
        input_bytes=len(layers) * widths.hidden * width,
    )


def _passes(model: Mapping[str, object]) -> Passes:
    """The passes of a recipe's `model.init_args`; what it leaves out is as `GBCModule` has it."""
    options: object = model.get("attribution") or {}
    for name in ("connections", "gradients"):
        options = cast("JsonDict", options).get(name) or {}
    gradients = cast("JsonDict", options)
    tasks = cast("JsonDict", model.get("run") or {}).get("tasks_at_once", RunOptions().tasks_at_once)
    return Passes(
        trained_tasks=tasks if model.get("soft") else 0,
        attributed_tokens=gradients.get("max_tokens", _PASS_TOKENS) if model.get("attribute_every_n_steps", 1) else 0,
        checkpointing=bool(gradients.get("checkpointing", False)),
    )


def _meta_model(path: str) -> PreTrainedModel:
    try:
        return meta_model(path)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        hint = "give the model's folder, or one with its config.json alone"
        raise ConfigError(f"{path} has no config.json that can be used ({reason})", hint=hint) from None


def _texts(steps: Sequence[PlannedStep], *, num_soft: int) -> list[tuple[Agent, Texts]]:
    """The agents' steps with their longest texts."""
    said = {step.name: step.node.max_new_tokens if isinstance(step.node, Agent) else _TASK_TOKENS for step in steps}
    found: list[tuple[Agent, Texts]] = []
    for step in steps:
        if isinstance(step.node, Agent):
            prompt = -(-len(step.node.prompt) // _LETTERS_PER_TOKEN) + num_soft
            # Of the steps that may stand for one upstream, one does.
            messages = sum(
                max((said.get(each, _TASK_TOKENS) for each in step.reads[name]), default=0)
                for name in reads_of(step.node)
            )
            found.append((step.node, Texts(read=prompt + messages, said=step.node.max_new_tokens)))
    return found


def _trained_values(soft: JsonDict | None, agents: Sequence[Agent], models: Mapping[str, PreTrainedModel]) -> int:
    """Values of soft prompts and adapters; gates are a few."""
    if soft is None or soft["model"] not in models:
        return 0
    num_agents = sum(agent.model == soft["model"] for agent in agents)
    model = models[soft["model"]]
    values = int(soft["num_tokens"]) * hidden_size(model)
    adapters = cast("JsonDict | None", soft.get("adapters"))
    if adapters is not None:
        for name, module in cast("Iterable[tuple[str, nn.Module]]", cast(nn.Module, model).named_modules()):
            if isinstance(module, nn.Linear) and name.endswith(tuple(adapters["targets"])):
                values += int(adapters["rank"]) * (module.in_features + module.out_features)
    return num_agents * values


def _plan(
    run: PlannedRun,
    steps: Sequence[tuple[LocalModelConfig, ModelShape, Texts]],
    shapes: Sequence[ModelShape],
    trained: int,
    passes: Passes,
) -> Plan:
    """The plan of steps of known sizes.

    Args:
        run: strategy, devices and batch.
        steps: of every task: the model, its shape, the lengths.
        shapes: of the models that are loaded.
        trained: values of soft prompts and adapters.
        passes: forward and backward passes over a task besides its generation.
    """
    num = run.num_devices
    weights = buffers = 0
    sharded: dict[int, bool] = {}
    for shape in shapes:
        workload = _workload(shape, run)
        share = named_backend(run.strategy.name).plan_share(run.strategy, workload).parameters
        sharded[id(shape)] = share < shape.layer_values
        weights += shape.value_bytes * (shape.values - shape.layer_values + share)
        buffers += 2 * shape.value_bytes * shape.largest_layer * sharded[id(shape)]
    flops = sent = read = cache = 0
    for config, shape, texts in steps:
        tokens = texts.read + texts.said
        # A multiply and an add for each weight and token; backward to the inputs as much again.
        flops += 2 * shape.values * tokens * (1 + 2 * passes.count)
        batches = math.ceil(run.micro_batch / config.batch_size) * run.accumulation
        read += batches * texts.said * shape.value_bytes * shape.values
        at_once = min(run.micro_batch, config.batch_size)
        cache = max(cache, at_once * tokens * shape.cache_bytes)
        if sharded[id(shape)]:
            gathers = batches * (texts.said + 2 * passes.count)
            sent += gathers * round(ring_bytes(shape.layer_values, num, shape.value_bytes))
    activations = max(cache, _kept_bytes(steps, passes, run.micro_batch))
    sent += round(2 * ring_bytes(trained, num)) if num > 1 else 0
    # Gradients, moments and the values themselves are whole on every process.
    return Plan(
        run=run,
        num_parameters=sum(shape.values for shape in shapes) + trained,
        num_frozen=sum(shape.values for shape in shapes),
        memory=Memory(
            parameters=weights + FLOAT_BYTES * trained,
            gradients=FLOAT_BYTES * trained,
            optimizer=2 * FLOAT_BYTES * trained,
            ema=0,
            activations=activations,
            buffers=buffers,
            host=0,
            peak=weights + buffers + 4 * FLOAT_BYTES * trained + activations + _RUNTIME,
        ),
        flops_per_sample=flops,
        bytes_sent=sent,
        bytes_between_nodes=node_bytes(sent, num, run.num_nodes),
        bytes_read=read,
        checkpoint_bytes=_KEPT_VALUES * FLOAT_BYTES * trained,
    )


def _kept_bytes(steps: Sequence[tuple[LocalModelConfig, ModelShape, Texts]], passes: Passes, micro_batch: int) -> int:
    """The most that is kept for a backward pass.

    Args:
        steps: of every task.
        passes: of training and of attribution.
        micro_batch: tasks of a process.
    """
    # A run is trained through as a whole, from its loss to its first step.
    task = sum(shape.kept_bytes * (texts.read + texts.said) for _, shape, texts in steps)
    attributed = 0
    for _, shape, texts in steps:
        tokens = texts.read + texts.said
        tokens = max(tokens, min(passes.attributed_tokens, micro_batch * tokens)) if passes.attributed_tokens else 0
        kept = shape.kept_bytes
        if passes.checkpointing:
            # The inputs of all layers, and all of one layer while it runs again.
            kept = shape.input_bytes + shape.kept_bytes * shape.largest_layer // shape.layer_values
        attributed = max(attributed, tokens * kept)
    return max(min(passes.trained_tasks, micro_batch) * task, attributed)


def _workload(shape: ModelShape, run: PlannedRun) -> Workload:
    """The decoder layers, which a strategy may spread over processes."""
    return Workload(
        shapes={"layers": Size([shape.layer_values])},
        largest_unit=shape.largest_layer,
        largest_trained_unit=shape.largest_layer,
        num_processes=run.num_devices,
        accumulation=run.accumulation,
        forward_values=lambda: shape.layer_values,
        backward_values=lambda: shape.layer_values,
    )
