"""Packed layers multiply as plain ones do, and a packed model shares what it does not replace."""

import pytest
import torch

from framework.core.compat.torch_compat import packs_weights
from framework.pra.network.layers import Linear
from framework.pra.network.packing import DTYPES, PackedLinear, Precision, is_packed, pack_for_sampling
from framework.testing.models import tiny_model

TOLERANCES: dict[Precision, float] = {"fp32": 1e-5, "bf16": 2e-2}


@pytest.fixture(params=["fp32", "bf16"])
def precision(request: pytest.FixtureRequest) -> Precision:
    """Those that this processor packs weights of: one without AVX-512 has no bfloat16."""
    if not packs_weights(DTYPES[request.param]):
        pytest.skip(f"oneDNN packs no weights in {request.param} on this processor")
    return request.param


@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_multiplies_as_a_plain_one(precision: Precision, bias: bool):
    layer, x = Linear(40, 24, bias=bias), torch.randn(3, 7, 40)
    if bias:
        torch.nn.init.normal_(layer.bias)
    made = PackedLinear(layer, precision)(x)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, layer(x), rtol=TOLERANCES[precision], atol=TOLERANCES[precision])


def test_a_row_does_not_depend_on_how_many_there_are(precision: Precision):
    packed, x = PackedLinear(Linear(96, 64), precision), torch.randn(40, 96)
    whole = packed(x)
    assert all(torch.equal(packed(x[:rows]), whole[:rows]) for rows in range(2, 40))


def test_packing_leaves_the_model_as_it_was(precision: Precision):
    model = tiny_model()
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Linear)}
    packed = pack_for_sampling(model, precision)
    assert is_packed(packed)
    assert not is_packed(model)
    assert {name for name, each in packed.named_modules() if isinstance(each, PackedLinear)} == set(layers)
    assert all(layer.weight.dtype == torch.float32 and layer.weight.requires_grad for layer in layers.values())
    assert packed.transformer.class_slots.data_ptr() == model.transformer.class_slots.data_ptr()


def test_weights_are_cast_where_nothing_packs_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("framework.pra.network.packing.packs_weights", lambda dtype: False)
    model = tiny_model()
    lowered = pack_for_sampling(model, "bf16")
    assert not is_packed(lowered)
    assert {layer.weight.dtype for layer in lowered.modules() if isinstance(layer, Linear)} == {torch.bfloat16}
    assert lowered.transformer.norm.weight.dtype == torch.float32
    assert {layer.weight.dtype for layer in model.modules() if isinstance(layer, Linear)} == {torch.float32}
