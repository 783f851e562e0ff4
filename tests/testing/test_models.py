"""Tiny models and trainers: nothing hidden behind zeros, nothing random in between."""

from pathlib import Path

import torch

from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_model, tiny_module


def test_a_tiny_model_is_random_in_every_parameter_and_always_the_same():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, other = tiny_model(), tiny_model(), tiny_model(1)
    assert torch.equal(torch.rand(1), expected), "the global generator is left alone"
    for name, parameter in first.named_parameters():
        assert parameter.std() > 0, name
        assert torch.equal(parameter, second.get_parameter(name))
        assert not torch.equal(parameter, other.get_parameter(name))
    assert not first.training


def test_a_batch_is_a_function_of_its_seed():
    batch = tiny_batch(tiny_config(channels=3), 5, seed=2, epoch=7)
    assert batch.images.shape == (5, 3, 4, 4)
    assert batch.images.abs().max() <= 1
    assert batch.labels.max() < 3
    assert (batch.indices.tolist(), batch.epoch) == ([0, 1, 2, 3, 4], 7)
    assert torch.equal(tiny_batch(tiny_config(channels=3), 5, seed=2).images, batch.images)
    assert not torch.equal(tiny_batch(tiny_config(channels=3), 5, seed=3).images, batch.images)


def test_a_trainer_writes_nothing_that_it_was_not_asked_for(tmp_path: Path):
    trainer, module = quiet_trainer(tmp_path, max_steps=2), tiny_module()
    trainer.fit(module, datamodule=Batches([tiny_batch(tiny_config(), 2, seed=seed) for seed in range(3)]))
    assert trainer.global_step == 2
    assert list(tmp_path.iterdir()) == []
