"""What we use of peft beyond its documentation: each test says what moved when a new version moves it."""

import inspect
import sys
from importlib import import_module
from typing import Any

import pytest
import torch

from framework.core.errors import ConfigError
from framework.gbc.language_models import peft_compat as compat
from framework.testing.language_models import tiny_language_model

peft = pytest.importorskip("peft")

HERE = "see framework/gbc/language_models/peft_compat.py"


def moved(what: str) -> str:
    return f"peft {peft.__version__} moved {what}: {HERE}"


def with_an_adapter() -> tuple[compat.LoraLayers, str, list[tuple[str, Any]]]:
    model = tiny_language_model()
    layers = compat.LoraLayers(model)
    name = layers.add(compat.lora_config(model, rank=3, alpha=6, targets=["q_proj"]))
    return layers, name, layers.of(name)


def test_the_tuner():
    parameters = inspect.signature(peft.LoraModel.__init__).parameters
    assert "low_cpu_mem_usage" in parameters, moved("LoraModel(..., low_cpu_mem_usage)")
    parameters = inspect.signature(peft.LoraModel.inject_adapter).parameters
    assert "low_cpu_mem_usage" in parameters, moved("LoraModel.inject_adapter(..., low_cpu_mem_usage)")
    layers, first, found = with_an_adapter()
    second = layers.add(compat.lora_config(layers.model, rank=2, alpha=2, targets=["q_proj"]))
    assert (first, second) == ("adapter0", "adapter1"), moved("LoraModel.peft_config, a dict of the adapters")
    assert len(found) == len(layers.of(second)) == 3, moved("where inject_adapter puts its layers")


def test_a_layer():
    assert hasattr(import_module("peft.tuners.lora"), "LoraLayer"), moved("peft.tuners.lora.LoraLayer")
    _, name, found = with_an_adapter()
    key, layer = found[0]
    assert key == "model.layers.0.self_attn.q_proj", moved("the names of layers")
    for attribute in ("lora_A", "lora_B", "r", "scaling", "lora_variant", "get_base_layer"):
        assert hasattr(layer, attribute), moved(f"LoraLayer.{attribute}")
    assert layer.r[name] == 3, moved("LoraLayer.r, by adapter")
    assert name in layer.lora_A, moved("LoraLayer.lora_A, by adapter")
    a, b = compat.take_matrices(key, layer, name)
    assert (tuple(a.shape), tuple(b.shape)) == ((3, 32), (32, 3))
    assert a.key == "model.layers.0.self_attn.q_proj.lora_A"
    assert not list(a.module.parameters()), moved("the parameters of LoraLayer.lora_A")


def test_an_update_by_hand():
    _, name, found = with_an_adapter()
    key, layer = found[0]
    generator = torch.Generator().manual_seed(0)
    matrices = compat.take_matrices(key, layer, name)
    values = [torch.randn(matrix.shape, generator=generator) for matrix in matrices]
    for matrix, value in zip(matrices, values, strict=True):
        matrix.module.weight = value  # pyright: ignore[reportAttributeAccessIssue]
    read = torch.randn(2, 4, 32, generator=generator)
    layer.eval()
    said = layer(read, **{compat.ROW_NAMES: [compat.PLAIN] * 2})
    told = moved(f"a layer's argument {compat.ROW_NAMES!r}, or the name {compat.PLAIN!r} of a row without an adapter")
    torch.testing.assert_close(said, layer.get_base_layer()(read), msg=told)
    a, b = values
    assert compat.has_adapter(layer, name)
    assert not compat.has_adapter(layer, "adapter1")
    update = compat.update_of(layer, name, read)
    torch.testing.assert_close(update, 6 / 3 * read @ a.T @ b.T, msg=moved("LoraLayer.scaling, by adapter"))


@pytest.mark.filterwarnings("ignore:The PEFT config's", "ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_files(tmp_path):
    model = tiny_language_model()
    wrapped = peft.get_peft_model(model, compat.lora_config(model, rank=3, alpha=6, targets=["q_proj"]))
    wrapped.save_pretrained(tmp_path)
    for name in (compat.CONFIG, compat.WEIGHTS):
        assert (tmp_path / name).is_file(), moved(f"the file {name}")
    from safetensors.torch import load_file

    keys = load_file(tmp_path / compat.WEIGHTS).keys()
    expected = f"{compat.KEY_PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight"
    assert expected in keys, moved("the names in a file of weights")
    assert compat.is_plain_lora(compat.read_config(str(tmp_path)))


@pytest.mark.parametrize(
    ("options", "plain"),
    [({}, True), ({"init_lora_weights": "gaussian"}, True), ({"init_lora_weights": "pissa"}, False)],
)
def test_what_is_plain_lora(options: dict[str, Any], plain: bool):
    assert compat.is_plain_lora(peft.LoraConfig(**options)) == plain, moved("LoraConfig.init_lora_weights")


def test_a_machine_without_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match="adapters need peft"):
        compat.import_peft()
