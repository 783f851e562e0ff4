"""Import paths that recipes had before the code moved: the one table, for what runs and checkpoints have kept.

A path that a user writes today is not translated: the error names the new one (`refuse_moved`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from framework.core.errors import ConfigError

_ROOT = "framework."
_PATH = re.compile(r"\bframework(?:\.\w+)+(?::\w+)?")
_MOVED = {
    "errors": "core.errors",
    "files": "core.io",
    "seeds": "core.random.seeding",
    "core.seeding": "core.random.seeding",
    "initial": "core.init",
    "tags": "core.param_tags",
    "shapes": "core.shapes",
    "training.checkpoint.ranks": "core.collectives",
    "gbc.records": "core.serialization",
    "data.manifest": "data.shards.manifest",
    "data.tar": "data.archives.tar",
    "data.shards.tar": "data.archives.tar",
    "data.shards.index": "data.convert.index",
    "data.shard": "data.shards.shard",
    "data.index": "data.convert.index",
    "data.writer": "data.shards.writer",
    "data.reader": "data.shards.reader",
    "data.check": "data.shards.check",
    "data.stats": "data.shards.stats",
    "data.parallel": "data.shards.parallel",
    "data.finish": "data.shards.finalize",
    "data.examine": "data.shards.validate_sample",
    "data.convert_hf": "data.convert.hf",
    "data.convert_imagenet": "data.convert.imagenet",
    "data.convert_jsonl": "data.convert.jsonl",
    "data.digits": "data.convert.digits",
    "data.sources": "data.convert.find",
    "data.remote": "data.remote.files",
    "data.cache": "data.remote.cache",
    "data.store": "data.shards.backends",
    "data.order": "data.sampling.order",
    "data.mixing": "data.sampling.mixing",
    "data.batching": "data.sampling.batching",
    "data.progress": "data.sampling.progress",
    "data.batch": "data.loading.batch",
    "data.datasets": "data.loading.datasets",
    "data.loader": "data.loading.loader",
    "data.bad_samples": "data.loading.bad_samples",
    "data.slots": "data.loading.shared_buffers",
    "data.images": "data.images.decoding",
    "data.transforms": "data.images.transforms",
    "training.strategy_config": "training.strategies.config",
    "training.strategies": "training.strategies.build",
    "training.sharding": "training.strategies.placement",
    "training.process_end": "training.shutdown",
    "training.checkpoint.deepspeed_files": "training.strategies.deepspeed_files",
    "training.callbacks.attempts": "training.callbacks.restarts",
    "training.callbacks.spike": "training.callbacks.loss_spike",
    "tracking.attempts": "tracking.restarts",
    "tracking.folder": "tracking.run_folder",
    "tracking.run": "tracking.loggers",
    "tracking.metrics": "tracking.metric_names",
    "tracking.coloured": "gbc.tracking.credit_html",
    "tracking.differences": "gbc.tracking.prompt_diff",
    "tracking.episodes": "gbc.tracking.episode_records",
    "tracking.prompt_history": "gbc.tracking.prompt_history",
    "report.agents": "gbc.tracking.report_section",
    "evaluation.judge": "evaluation.svm_accuracy",
    "gbc.language": "language_model.module",
    "gbc.environments.chat_tokenizer": "language_model.chat_tokenizer",
    "pra.config": "pra.network.config",
    "pra.patches": "pra.network.patches",
    "pra.layers": "pra.network.layers",
    "pra.transformer": "pra.network.transformer",
    "pra.head": "pra.network.head",
    "pra.codec": "pra.network.codec",
    "pra.model": "pra.network.model",
    "pra.cost": "pra.planning.flops",
    "pra.plan": "pra.planning.memory",
    "gbc.graph": "gbc.graph.spec",
    "gbc.unroll": "gbc.graph.unroll",
    "gbc.trace": "gbc.graph.trace",
    "gbc.losses": "gbc.graph.verbal_loss",
    "gbc.recipes": "gbc.graph.yaml_config",
    "gbc.encode": "gbc.language_models.prompt_encoding",
    "gbc.models": "gbc.language_models.local",
    "gbc.head": "gbc.language_models.logits",
    "gbc.prefix": "gbc.language_models.prefix_cache",
    "gbc.adapters": "gbc.language_models.lora",
    "gbc.steering": "gbc.language_models.agent_parameters",
    "gbc.soft": "gbc.language_models.straight_through",
    "gbc.server": "gbc.language_models.server",
    "gbc.run": "gbc.execution.runner",
    "gbc.budget": "gbc.execution.budget",
    "gbc.load": "gbc.execution.loading",
    "gbc.attribution": "gbc.attribution.attribute",
    "gbc.gradients": "gbc.attribution.token_gradients",
    "gbc.connections": "gbc.attribution.edge_weights",
    "gbc.edits": "gbc.attribution.counterfactual_edits",
    "gbc.effects": "gbc.attribution.first_order_edits",
    "gbc.rerun": "gbc.attribution.tool_replay",
    "gbc.flow": "gbc.attribution.credit_propagation",
    "gbc.estimators": "gbc.attribution.estimators",
    "gbc.baselines": "gbc.attribution.baselines",
    "gbc.reference": "gbc.attribution.reference",
    "gbc.credits": "gbc.attribution.results",
    "gbc.picture": "gbc.attribution.graph_plot",
    "gbc.report": "gbc.attribution.html_report",
    "gbc.optimizers.loop": "gbc.prompt_search.search",
    "gbc.optimizers.candidates": "gbc.prompt_search.candidates",
    "gbc.optimizers.opro": "gbc.prompt_search.opro",
    "gbc.optimizers.state": "gbc.prompt_search.state",
    "gbc.module": "gbc.training.module",
    "gbc.training.system": "gbc.training.setup",
    "gbc.training.episodes": "gbc.training.rollouts",
    "gbc.training.work": "gbc.training.worker",
    "gbc.training.lockstep": "gbc.training.collective_models",
    "gbc.training.history": "gbc.training.prompt_tracking",
    "gbc.training.failures": "gbc.training.failure_limit",
    "gbc.training.search": "gbc.training.prompt_steps",
    "gbc.logs.form": "gbc.logs.schema",
    "gbc.environments.microworld.blame": "gbc.environments.microworld.fault_localization",
    "gbc.environments.microworld.repair": "gbc.environments.microworld.prompt_repair",
    "gbc.environments.microworld.lessons": "gbc.environments.microworld.training_examples",
    "gbc.environments.microworld.twins": "gbc.environments.microworld.mixup_pairs",
    "gbc.environments.multiwoz.acts": "gbc.environments.multiwoz.dataset.acts",
    "gbc.environments.multiwoz.database": "gbc.environments.multiwoz.dataset.database",
    "gbc.environments.multiwoz.fewshot": "gbc.environments.multiwoz.dataset.fewshot",
    "gbc.environments.multiwoz.mentions": "gbc.environments.multiwoz.dataset.mentions",
    "gbc.environments.multiwoz.release": "gbc.environments.multiwoz.dataset.release",
    "gbc.environments.multiwoz.shards": "gbc.environments.multiwoz.dataset.shards",
    "gbc.environments.multiwoz.slots": "gbc.environments.multiwoz.dataset.slots",
    "gbc.environments.multiwoz.values": "gbc.environments.multiwoz.dataset.values",
    "gbc.environments.multiwoz.episodes": "gbc.environments.multiwoz.dataset.dialogues",
    "gbc.environments.multiwoz.lessons": "gbc.environments.multiwoz.state_tracking.training_examples",
    "gbc.environments.multiwoz.lesson_shards": "gbc.environments.multiwoz.state_tracking.example_shards",
    "gbc.environments.multiwoz.tokenizer": "gbc.environments.multiwoz.state_tracking.tokenizer",
    "gbc.environments.multiwoz.tracking": "gbc.environments.multiwoz.state_tracking.turns",
}
"""Old -> new, both below `framework`: a module, or one name in it (`module.Class`), which goes before its module."""


def current_path(path: str) -> str:
    """An import path, `package.module.name` or `package.module:name`, as it is since the move; others unchanged."""
    if not path.startswith(_ROOT):
        return path
    separator = ":" if ":" in path else "."
    module, _, name = path.removeprefix(_ROOT).rpartition(separator)
    if (whole := _MOVED.get(f"{module}.{name}")) is not None:
        module, _, name = whole.rpartition(".")
    elif module in _MOVED:
        module = _MOVED[module]
    else:
        return path
    return f"{_ROOT}{module}{separator}{name}"


def current_text(text: str) -> str:
    """A text, such as a saved recipe, in which every old import path is the new one."""
    return _PATH.sub(lambda found: current_path(found[0]), text)


def refuse_moved(tree: object, source: str) -> None:
    """Whether what a user gives has old import paths.

    Args:
        tree: a text, or the mappings and lists that YAML gave.
        source: what to call it in the message.

    Raises:
        ConfigError: it has; the hint is the new path of the first.
    """
    for text in _texts(tree):
        for path in _PATH.findall(text):
            if (moved := current_path(path)) != path:
                raise ConfigError(f"{source} names {path}, which has moved", hint=f"use {moved}")


def _texts(tree: object) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping | list):
        values = cast("Iterable[object]", tree.values() if isinstance(tree, Mapping) else tree)
        for value in values:
            yield from _texts(value)
