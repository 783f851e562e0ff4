"""oneDNN's products and their gradients are torch's, and are taken where they pay."""

import pytest
import torch
import torch.nn.functional as F

from framework.core import products
from framework.core.compat.torch_compat import packs_weights
from framework.pra.network.layers import Linear

needs_onednn = pytest.mark.skipif(not packs_weights(torch.float32), reason="torch without oneDNN")


@pytest.fixture
def every_size(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Products of any size, on any processor; and a note of each."""
    taken: list[object] = []
    own = products.onednn_product

    def noted(*arguments: object) -> object:
        taken.append(arguments)
        return own(*arguments)

    monkeypatch.setattr(products, "LEAST_MULTIPLICATIONS", 1)
    monkeypatch.setattr(products, "prefers_onednn", lambda: True)
    monkeypatch.setattr(products, "onednn_product", noted)
    return taken


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axes", [(6,), (2, 3), (2, 3, 1)])
def test_products_and_gradients_equal_torch_s(every_size: list[object], bias: bool, axes: tuple[int, ...]):
    layer, x = Linear(20, 12, bias=bias), torch.randn(*axes, 20, requires_grad=True)
    again, weight = x.detach().clone().requires_grad_(), layer.weight.detach().clone().requires_grad_()
    offset = layer.bias.detach().clone().requires_grad_() if bias else None
    made, expected = layer(x), F.linear(again, weight, offset)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
    towards = torch.randn_like(expected)
    made.backward(towards)
    expected.backward(towards)
    torch.testing.assert_close(x.grad, again.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-5, atol=1e-5)
    if offset is not None:
        torch.testing.assert_close(layer.bias.grad, offset.grad, rtol=1e-5, atol=1e-5)
    assert len(every_size) == 3


@needs_onednn
def test_only_wanted_gradients_are_computed(every_size: list[object]):
    layer = Linear(20, 12)
    layer.weight.requires_grad_(False)
    x = torch.randn(4, 20, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert len(every_size) == 2


@needs_onednn
@pytest.mark.usefixtures("every_size")
def test_a_second_derivative_is_an_error_rather_than_zero():
    x = torch.randn(4, 20, requires_grad=True)
    (first,) = torch.autograd.grad(Linear(20, 12)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


def test_what_it_is_not_for(every_size: list[object]):
    layer, x = Linear(8, 8), torch.randn(4, 8)
    with torch.no_grad():
        layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)
    layer.double()(x.double())
    layer.to("meta")(x.to("meta"))
    assert not every_size


def test_small_products_are_torch_s(monkeypatch: pytest.MonkeyPatch, every_size: list[object]):
    monkeypatch.setattr(products, "LEAST_MULTIPLICATIONS", 4 * 8 * 8 + 1)
    Linear(8, 8)(torch.randn(4, 8))
    assert not every_size


@pytest.mark.parametrize(
    ("words", "preferred"),
    [("AuthenticAMD avx512f", True), ("AuthenticAMD avx2", False), ("GenuineIntel avx512f", False)],
)
def test_processors(monkeypatch: pytest.MonkeyPatch, tmp_path, words: str, preferred: bool):
    (tmp_path / "cpuinfo").write_text(words)
    monkeypatch.setattr(products, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(products.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(products, "packs_weights", lambda dtype: True)
    assert products.prefers_onednn.__wrapped__() is preferred
