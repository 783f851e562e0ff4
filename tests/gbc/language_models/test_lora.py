"""Adapters of agents on one model: each as if its update were part of the weights, alone and in mixed batches."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.func import functional_call
from transformers import PreTrainedModel

from framework.core.errors import ConfigError
from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.options import GradientOptions
from framework.gbc.attribution.token_gradients import token_scores
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.agent_parameters import AgentParameters
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.gbc.language_models.lora import CONFIG, WEIGHTS, AdapterConfig, Adapters, active_adapters
from framework.gbc.language_models.straight_through import straight_through_loss
from framework.testing.language_models import save_tiny_model, tiny_language_model, tiny_local_model

CONFIG_OF_TESTS = AdapterConfig(rank=3, alpha=6, targets=("q_proj", "down_proj"))
TASKS = [{"id": "0", "user": "a cheap hotel"}, {"id": "1", "user": "north"}]
TRAINED = ("train", "end")


def agent(name: str, *reads: str) -> Agent:
    # One prompt for all: their prefixes differ by the adapters alone.
    return Agent(name=name, prompt="You are one.", model="m", reads=reads, max_new_tokens=5)


# An agent may be called as an attribute of modules is.
GRAPH = Graph(agents=(agent("train", "user"), agent("plain", "user"), agent("end", "train", "plain")))


def adapted(*, scale: float = 0.3, config: AdapterConfig = CONFIG_OF_TESTS) -> LocalModel:
    """A model of three agents, two with adapters that change what it says."""
    model = tiny_local_model()
    model.adapters.add(TRAINED, config)
    generator = torch.Generator().manual_seed(0)
    values = {name: model.adapters.init_values(name, seed=0) for name in TRAINED}
    model.adapters.assign({name: v + scale * torch.randn(v.shape, generator=generator) for name, v in values.items()})
    return model


def traces_of(model: LocalModel) -> list[Trace]:
    return list(run_graph(GRAPH, {"m": model}, TASKS, options=RunOptions(on_empty="keep")))


def updated_weights(value: Tensor, config: AdapterConfig = CONFIG_OF_TESTS) -> dict[str, Tensor]:
    """The weights W + alpha / rank B A of the plain model."""
    weights = dict(tiny_local_model().model.named_parameters())
    place = 0
    for name in (name for name in list(weights) if name.rsplit(".", 2)[1] in config.targets):
        outputs, inputs = weights[name].shape
        a, b = value[place : place + config.rank * (inputs + outputs)].split(
            [config.rank * inputs, config.rank * outputs]
        )
        update = b.view(outputs, config.rank) @ a.view(config.rank, inputs)
        weights[name] = weights[name] + config.alpha / config.rank * update
        place += config.rank * (inputs + outputs)
    assert place == len(value)
    return weights


def updated_model(model: LocalModel, name: str) -> LocalModel:
    """A plain model whose weights have the update of an agent."""
    found = tiny_local_model()
    if name in model.adapters.values:
        with torch.no_grad():
            for key, weight in updated_weights(model.adapters.values[name]).items():
                found.model.get_parameter(key).copy_(weight)
    return found


def test_first_values_change_nothing():
    model = tiny_local_model()
    plain = traces_of(model)
    model.adapters.add(TRAINED, CONFIG_OF_TESTS)
    assert traces_of(model) == plain
    first = {name: model.adapters.init_values(name, seed=0) for name in TRAINED}
    model.adapters.assign(first)
    assert traces_of(model) == plain
    assert not torch.equal(first["train"], first["end"])
    assert torch.equal(first["end"], model.adapters.init_values("end", seed=0))
    assert not torch.equal(first["end"], model.adapters.init_values("end", seed=1))
    assert 0.9 / 32**0.5 < first["end"][: 3 * 32].abs().max() <= 1 / 32**0.5


def test_a_mixed_batch_is_said_by_each_agent_with_its_adapter():
    model = adapted()
    for trace, plain in zip(traces_of(model), traces_of(tiny_local_model()), strict=True):
        assert trace.step("plain") == plain.step("plain")
        assert trace.step("train").output_ids != plain.step("train").output_ids
        for name in ("train", "plain", "end"):
            step = trace.step(name)
            (said,) = updated_model(model, name).generate([step.input_ids], max_new_tokens=5, seeds=[0])
            assert said == step.output_ids


def test_the_gradient_of_the_loss_is_that_of_updated_weights():
    model = adapted()
    leaves = {name: value.detach().requires_grad_() for name, value in model.adapters.values.items()}
    model.adapters.assign(leaves)
    trace = traces_of(model)[0]
    found = straight_through_loss(model, "m", [trace], ["the old mill"]).value
    last, first = torch.autograd.grad(
        found, [leaves["end"], leaves["train"]], materialize_grads=True, allow_unused=True
    )
    value = leaves["end"].detach().clone().requires_grad_()
    step = trace.step("end")
    goal = [*model.tokenizer("the old mill")["input_ids"], model.tokenizer.eos_token_id]
    ids = torch.tensor([[*step.input_ids, *goal]])
    logits = functional_call(tiny_local_model().model, updated_weights(value), (ids,)).logits
    loss = torch.nn.functional.cross_entropy(logits[0, len(step.input_ids) - 1 : -1], torch.tensor(goal))
    assert found.item() == pytest.approx(loss.item(), rel=1e-5)
    (expected,) = torch.autograd.grad(loss, value)
    assert (last - expected).abs().max() < 1e-4 * expected.abs().max()
    # Through the message.
    assert first.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        GradientOptions(),
        GradientOptions(gradients_at_once=3),
        GradientOptions(scalar="sum_squares", checkpointing=True),
        GradientOptions(max_tokens=30),
    ],
)
def test_scores_of_a_mixed_batch_are_those_of_updated_weights(options: GradientOptions):
    """Prompts are cached: equal ones of agents with unlike adapters must not be shared."""
    model = adapted()
    steps = [step for trace in traces_of(model) for step in trace.steps if step.kind == "agent"]
    rows = [TokenRow.of(model, step, prefix=step.messages[0].tokens[0]) for step in steps]
    prefixes = {(step.name, row.input_ids[: row.prefix]) for step, row in zip(steps, rows, strict=True)}
    # Two agents read the user, and one both of them.
    assert (len(prefixes), len({ids for _, ids in prefixes})) == (3, 2)
    for step, row, scores in zip(steps, rows, token_scores(model.model, rows, options), strict=True):
        alone = updated_model(model, step.name)
        (expected,) = token_scores(alone.model, [TokenRow.of(alone, step, prefix=row.prefix)], options)
        assert torch.allclose(scores.log_probs, expected.log_probs, atol=1e-4)
        for ours, theirs in ((scores.l1, expected.l1), (scores.gradient_input, expected.gradient_input)):
            assert (ours - theirs).abs().max() < 1e-3 * theirs.abs().max()


def test_an_agent_is_attributed_with_its_adapter():
    model = adapted()
    traces = traces_of(model)
    losses = [VerbalLoss(value=1.0, text="wrong")] * len(traces)
    found = attribute(traces, GRAPH, {"m": model}, losses)
    plain = attribute(traces, GRAPH, {"m": tiny_local_model()}, losses)
    weights = [[{(e.source, e.target): e.weight for e in each.edges} for each in part] for part in (found, plain)]
    for edge in (("user", "plain"), ("user", "train"), ("train", "end")):
        assert (weights[0][0][edge] == pytest.approx(weights[1][0][edge], rel=1e-4)) == (edge[1] == "plain")


# peft 0.21 asks transformers 5.23 so.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_files_are_pefts(tmp_path: Path):
    from peft import PeftModel

    save_tiny_model(tmp_path / "model")
    config = LocalModelConfig(path=str(tmp_path / "model"))
    model = LocalModel.load(config)
    model.adapters.add(TRAINED, CONFIG_OF_TESTS)
    first = {name: torch.randn_like(model.adapters.init_values(name, seed=0)) for name in TRAINED}
    model.set_agent_parameters(AgentParameters(soft={}, gates={}, adapters=first))
    model.adapters.write(tmp_path / "best/adapters", model.adapters.values)
    files = sorted(str(path.relative_to(tmp_path / "best")) for path in (tmp_path / "best").rglob("*.*"))
    assert files == [f"adapters/{name}/{file}" for name in sorted(TRAINED) for file in (CONFIG, WEIGHTS)]
    read = LocalModel.load(LocalModelConfig(path=config.path, adapters=str(tmp_path / "best/adapters")))
    assert read.adapters.values.keys() == first.keys()
    assert all(torch.equal(read.adapters.values[name], first[name]) for name in TRAINED)
    said = traces_of(model)
    assert traces_of(read) == said
    step = said[0].step("end")
    theirs = PeftModel.from_pretrained(LocalModel.load(config).model, str(tmp_path / "best/adapters/end"))
    ids = torch.tensor([[*step.input_ids, *step.output_ids]])
    picks = theirs(input_ids=ids).logits[0, len(step.input_ids) - 1 : -1].argmax(dim=-1)
    assert tuple(picks.tolist()) == step.output_ids


def test_other_adapters_take_the_places_of_those_before():
    model = adapted()
    plain = traces_of(tiny_local_model())
    model.adapters.add(["end"], AdapterConfig(rank=2, targets=("self_attn.v_proj",)))
    model.adapters.assign({"end": torch.randn_like(model.adapters.init_values("end", seed=0))})
    (first, second) = traces_of(model)
    assert first.step("train") == plain[0].step("train")
    assert second.step("end") != plain[1].step("end")
    model.adapters.assign({})
    assert traces_of(model) == plain


def tiny() -> PreTrainedModel:
    return tiny_language_model(num_hidden_layers=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank 0"),
        ({"alpha": 0}, "alpha 0"),
        ({"targets": ()}, "without targets"),
        ({"targets": ("q_proj", "query")}, r"'query', .*use some of down_proj, .*, v_proj"),
        ({"targets": ("roj",)}, "'roj'"),
    ],
)
def test_what_no_adapter_can_be(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        Adapters(tiny()).add(["a"], AdapterConfig(**options))


def test_targets_are_named_also_where_they_have_adapters():
    adapters = Adapters(tiny())
    adapters.add(["a"], AdapterConfig())
    adapters.add(["b"], AdapterConfig())
    with pytest.raises(
        ConfigError, match=r"use some of down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj"
    ):
        adapters.add(["c"], AdapterConfig(targets=("lora_A",)))


def test_without_peft(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r'adapters need peft: install it with: pip install "framework\[adapters\]"'):
        Adapters(tiny()).add(["a"], AdapterConfig())


def written(folder: Path, **changes: Any) -> Adapters:
    adapters = Adapters(tiny())
    adapters.add(["a"], AdapterConfig(**changes))
    adapters.write(folder, {"a": adapters.init_values("a", seed=0)})
    return adapters


def test_folders_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(ConfigError, match="holds no adapters"):
        Adapters(tiny()).read(tmp_path)
    written(tmp_path / "whole")
    for changes in ({"num_hidden_layers": 1, "hidden_size": 16}, {"num_hidden_layers": 2}):
        with pytest.raises(ConfigError, match="give plain LoRA that was trained with this model"):
            Adapters(tiny_language_model(**changes)).read(tmp_path / "whole")
    weights = tmp_path / "whole/a" / WEIGHTS
    tensors = load_file(weights)
    save_file({**tensors, "base_model.model.lm_head.weight": torch.zeros(1)}, weights)
    with pytest.raises(ConfigError, match="lm_head"):
        Adapters(tiny()).read(tmp_path / "whole")
    weights.write_bytes(b"\x80\x04")
    with pytest.raises(ConfigError, match="holds no usable adapter"):
        Adapters(tiny()).read(tmp_path / "whole")
    weights.unlink()
    with pytest.raises(ConfigError, match="holds no usable adapter"):
        Adapters(tiny()).read(tmp_path / "whole")
    (tmp_path / "whole/a" / CONFIG).write_text("{")
    with pytest.raises(ConfigError, match="holds no usable adapter"):
        Adapters(tiny()).read(tmp_path / "whole")


def test_other_kinds_of_adapters(tmp_path: Path):
    import peft

    for number, options in enumerate(
        ({"use_dora": True}, {"init_lora_weights": "pissa"}, {"layer_replication": [[0, 1], [0, 1]]})
    ):
        peft.LoraConfig(r=2, target_modules=["q_proj"], **options).save_pretrained(str(tmp_path / f"{number}/a"))
        save_file({}, tmp_path / f"{number}/a" / WEIGHTS)
        with pytest.raises(ConfigError, match="plain LoRA"):
            Adapters(tiny()).read(tmp_path / str(number))
    peft.IA3Config(target_modules=["q_proj"], feedforward_modules=[]).save_pretrained(str(tmp_path / "ia3/a"))
    with pytest.raises(ConfigError, match="IA3"):
        Adapters(tiny()).read(tmp_path / "ia3")


def test_a_layer_that_is_passed_other_rows():
    model = adapted()
    layer = model.model.get_submodule("model.layers.0.self_attn.q_proj")
    with (
        active_adapters([model.adapters.of("train")]),
        pytest.raises(ConfigError, match="passed 2 rows for 1 texts"),
    ):
        layer(torch.zeros(2, 32))
