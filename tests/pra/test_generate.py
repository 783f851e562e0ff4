"""Many images: classes in turn, batches, noise by number."""

import torch

from framework.pra.generate import balanced_labels, generate
from framework.pra.sampling import SamplerConfig
from framework.testing.models import tiny_model

SAMPLER = SamplerConfig(steps=2)


def test_classes_in_turn():
    assert balanced_labels(5, [7, 3]) == [7, 3, 7, 3, 7]
    assert balanced_labels(4, range(2)) == [0, 1, 0, 1]
    assert balanced_labels(1, range(10)) == [0]


def test_batches():
    batches = list(generate(tiny_model(), [0, 1, 2, 0, 1], seed=0, sampler=SAMPLER, batch_size=2))
    assert [batch.shape for batch in batches] == [(2, 1, 4, 4), (2, 1, 4, 4), (1, 1, 4, 4)]


def test_an_image_depends_on_seed_number_and_class_alone():
    model = tiny_model()

    def made(labels: list[int], seed: int) -> torch.Tensor:
        return torch.cat(list(generate(model, labels, seed=seed, sampler=SAMPLER, batch_size=4)))

    first = made([0, 1, 2, 0], 5)
    torch.testing.assert_close(made([0, 2, 2], 5)[[0, 2]], first[[0, 2]], rtol=1e-4, atol=1e-4)
    assert not torch.isclose(made([0, 1, 2, 0], 6), first).flatten(1).all(1).any()
    assert not torch.isclose(first[0], first[3]).all(), "one class, two numbers"


def test_bfloat16_is_near_and_another_way():
    model, labels = tiny_model(), [0, 1, 2] * 4
    made = {
        precision: torch.cat(list(generate(model, labels, seed=1, sampler=SamplerConfig(steps=3), precision=precision)))
        for precision in ("fp32", "bf16")
    }
    with torch.autocast("cpu", torch.bfloat16):
        # As in training, unless it is said.
        around, said = (
            generate(model, labels, seed=1, sampler=SamplerConfig(steps=3), precision=precision)
            for precision in (None, "fp32")
        )
        assert torch.equal(torch.cat(list(around)), made["bf16"])
        assert torch.equal(torch.cat(list(said)), made["fp32"])
    difference = (made["fp32"] - made["bf16"]).abs()
    assert made["bf16"].dtype == torch.float32
    assert difference.max() > 0
    # Three digits of precision, through twelve steps of the head and four of the transformer.
    assert difference.mean() < 0.03 * made["fp32"].std()
