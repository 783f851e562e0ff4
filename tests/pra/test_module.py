"""The LightningModule: what it refuses, which weights and noise it uses, what it logs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from framework.core.errors import ConfigError
from framework.core.random.seeding import seed_of
from framework.data.images.transforms import ImageConfig
from framework.data.loading.batch import ImageBatch
from framework.data.module import ShardDataModule
from framework.evaluation.classifier import ClassifierConfig, ImageClassifier, save_classifier
from framework.pra.loss import ObjectiveConfig, draw_training_noise, training_losses
from framework.pra.module import PRAModule
from framework.pra.network.config import VARIANTS, VariantName
from framework.pra.network.model import PRA
from framework.pra.noise import SampleNoise
from framework.testing.images import make_image_shards
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_model, tiny_module
from framework.training.ema import decay_at
from tests.pra.test_export import write

CONFIG = tiny_config()


def fit(run_dir: Path, module: PRAModule, batches: list[ImageBatch], **options: Any) -> dict[str, float]:
    trainer = quiet_trainer(run_dir, **{"max_epochs": 1, **options})
    trainer.fit(module, datamodule=Batches(batches))
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def randomise(module: PRAModule) -> PRAModule:
    """Unlike random weights for the model and its average."""
    module.configure_model()
    module.model.load_state_dict(tiny_model(1, variant=module.architecture.variant).state_dict())
    module.ema.load_state_dict(tiny_model(2, variant=module.architecture.variant).state_dict())
    return module


def expected_losses(model: PRA, batch: ImageBatch, purpose: str, *, seed: int = 0, epoch: int = 0) -> Any:
    source = SampleNoise([seed_of(purpose, seed, epoch, index) for index in batch.indices.tolist()], "cpu")
    objective = ObjectiveConfig()
    noise = draw_training_noise(source, model.config, objective)
    with torch.no_grad():
        return training_losses(model, batch.images, batch.labels, objective, noise)


# Refusals.


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("shards")
    make_image_shards(path, classes=("a", "b", "c"), size=4)
    return str(path / "shards")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image_size": 8},
            r"image_size is 8 in the model and 4 in the data: set model\.architecture\.image_size to 4",
        ),
        ({"channels": 3}, r"channels is 3 in the model and 1 in the data: set model\.architecture\.channels to 1"),
        ({"num_classes": 4}, r"num_classes is 4 in the model and 3 in the data: set model\.architecture\.num_classes"),
        ({"num_classes": 2}, "num_classes is 2 in the model and 3 in the data"),
    ],
)
def test_a_model_that_does_not_fit_the_data(tmp_path: Path, shards: str, changes: dict[str, int], message: str):
    data = ShardDataModule(train=shards, images=ImageConfig(size=4, channels=1), batch_size=4)
    with pytest.raises(ConfigError, match=message):
        quiet_trainer(tmp_path, max_steps=1).fit(tiny_module(tiny_config(**changes)), datamodule=data)


@pytest.mark.parametrize("num_classes", [3, 1])
def test_models_that_fit_the_data(tmp_path: Path, shards: str, num_classes: int):
    data = ShardDataModule(train=shards, images=ImageConfig(size=4, channels=1), batch_size=4)
    trainer = quiet_trainer(tmp_path, max_steps=2)
    trainer.fit(tiny_module(tiny_config(num_classes=num_classes)), datamodule=data)
    assert trainer.global_step == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema_decay": 1.0}, r"ema_decay 1\.0"),
        ({"objective": ObjectiveConfig(perceptual_weight=0.5)}, "perceptual_weight 0.5 with perceptual_network None: "),
        ({"perceptual_network": "x.ckpt"}, r"perceptual_weight 0\.0 with perceptual_network x\.ckpt: set both, or"),
        (
            {"architecture": tiny_config(decoder_context="none"), "objective": ObjectiveConfig(rollout_passes=2)},
            "rollout_passes 2 with decoder_context none: without a context every pass decodes the same",
        ),
    ],
)
def test_settings_that_do_not_fit(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        tiny_module(**options)


# Weights.


def test_the_average_starts_as_a_frozen_copy_and_is_made_once():
    module = tiny_module()
    module.configure_model()
    model, average = module.model, module.ema
    module.configure_model()
    assert (module.model, module.ema) == (model, average)
    for ours, theirs in zip(average.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert (ours.requires_grad, theirs.requires_grad) == (False, True)


class Weights(Callback):
    """Copies of the weights after every batch."""

    def __init__(self) -> None:
        self.model: list[torch.Tensor] = []
        self.ema: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        for model, copies in ((pl_module.model, self.model), (pl_module.ema, self.ema)):
            copies.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone())


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_follows_every_optimizer_step(tmp_path: Path, accumulate: int):
    module, weights = tiny_module(ema_decay=0.3), Weights()
    module.configure_model()
    average = torch.nn.utils.parameters_to_vector(module.ema.parameters()).clone()
    batches = [tiny_batch(CONFIG, 2, seed=seed) for seed in range(4 * accumulate)]
    fit(tmp_path, module, batches, callbacks=[weights], accumulate_grad_batches=accumulate)
    for micro_batch, (now, after) in enumerate(zip(weights.model, weights.ema, strict=True), start=1):
        step, rest = divmod(micro_batch, accumulate)
        if rest == 0:
            decay = decay_at(step - 1, 0.3)
            average = decay * average + (1 - decay) * now
        torch.testing.assert_close(after, average)
    assert decay_at(0, 0.3) < decay_at(3, 0.3) == 0.3


@pytest.mark.parametrize("variant", ["pra", "teacher_forced"])
def test_validation_uses_the_averaged_weights_and_noise_of_its_own(tmp_path: Path, variant: VariantName):
    module = randomise(tiny_module(tiny_config(variant=variant)))
    batch = replace(tiny_batch(CONFIG, 3), indices=torch.tensor([5, 0, 9]), epoch=7)
    trainer = quiet_trainer(tmp_path)
    [measured] = trainer.validate(module, datamodule=Batches([], [batch]), verbose=False)
    expected = expected_losses(module.ema, batch, "validation")
    assert measured["validation/flow_mse"] == pytest.approx(expected.flow.item(), rel=1e-5)
    assert measured["validation/total"] == pytest.approx(expected.total.item(), rel=1e-5)


def test_validation_is_a_mean_over_images(tmp_path: Path):
    module = randomise(tiny_module())
    whole = tiny_batch(CONFIG, 5)
    parts = [
        replace(whole, images=whole.images[part], labels=whole.labels[part], indices=whole.indices[part])
        for part in (slice(0, 4), slice(4, 5))
    ]
    together, apart = (
        quiet_trainer(tmp_path).validate(module, datamodule=Batches([], batches), verbose=False)[0]
        for batches in ([whole], parts)
    )
    assert apart == pytest.approx(together, rel=1e-5)


# Noise and labels.


@pytest.mark.slow
def test_the_training_noise_is_a_function_of_seed_epoch_and_image(tmp_path: Path):
    batch = replace(tiny_batch(CONFIG, 3), indices=torch.tensor([5, 0, 9]), epoch=7)
    module = randomise(tiny_module(seed=11))
    expected = expected_losses(module.model, batch, "train", seed=11, epoch=7)
    assert fit(tmp_path, module, [batch])["loss/total"] == pytest.approx(expected.total.item(), rel=1e-5)
    for other in (replace(batch, epoch=8), replace(batch, indices=batch.indices + 1)):
        measured = fit(tmp_path, randomise(tiny_module(seed=11)), [other])
        assert measured["loss/flow_mse"] != pytest.approx(expected.flow.item(), rel=1e-3)


def test_an_unconditional_model_sees_no_class(tmp_path: Path):
    config = tiny_config(num_classes=1)
    batch = replace(tiny_batch(config, 4), labels=torch.tensor([0, 3, 9, 2]))
    measured = [
        fit(tmp_path, tiny_module(config), [each])["loss/reconstruction_l1"]
        for each in (batch, replace(batch, labels=torch.zeros(4, dtype=torch.int64)))
        if torch.manual_seed(0)
    ]
    assert measured[0] == measured[1]


# Metrics.

STATES = {"flow_mse", "reconstruction_l1", "kl_nats_per_token", "total"}
PIXELS = {"flow_mse", "total"}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_metrics_of_each_variant(tmp_path: Path, variant: VariantName, precision: str):
    config = tiny_config(variant=variant)
    batch = tiny_batch(config, 2)
    trainer = quiet_trainer(tmp_path, max_epochs=1, precision=precision, val_check_interval=1, gradient_clip_val=1.0)
    trainer.fit(tiny_module(config), datamodule=Batches([batch, batch], [batch]))
    names = STATES if VARIANTS[variant].target == "states" else PIXELS
    expected = {f"{purpose}/{name}" for purpose in ("loss", "validation") for name in names}
    assert set(trainer.callback_metrics) == expected
    assert all(value.isfinite() for value in trainer.callback_metrics.values())


@pytest.mark.slow
def test_the_perceptual_distance_is_measured_and_trained(tmp_path: Path):
    config = tiny_config(image_size=8)
    torch.manual_seed(0)
    classifier = ImageClassifier(ClassifierConfig(num_classes=3, channels=1, width=8))
    save_classifier(tmp_path / "classifier.safetensors", classifier)
    objective = ObjectiveConfig(
        perceptual_weight=1.0, flow_weight=0.0, reconstruction_weight=0.0, kl_weight=0.0, class_dropout=0.0
    )
    module = tiny_module(config, objective=objective, perceptual_network=str(tmp_path / "classifier.safetensors"))
    batch = tiny_batch(config, 4)
    first = fit(tmp_path, module, [batch])
    assert set(first) == {f"loss/{name}" for name in {*STATES, "perceptual_distance"}}
    assert first["loss/total"] == first["loss/perceptual_distance"] > 0
    last = fit(tmp_path, module, [batch] * 20)
    assert last["loss/perceptual_distance"] < first["loss/perceptual_distance"]
    frozen = module.perceptual.classifier.state_dict()
    for name, value in classifier.state_dict().items():
        assert torch.equal(frozen[name], value), name


@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path: Path):
    batch = tiny_batch(CONFIG, 8)
    module = tiny_module()
    first = fit(tmp_path, module, [batch])["loss/reconstruction_l1"]
    assert fit(tmp_path, module, [batch] * 30)["loss/reconstruction_l1"] < 0.8 * first


@pytest.mark.slow
def test_the_parts_that_are_not_trainable_stay(tmp_path: Path):
    model = tiny_model(1)
    write(tmp_path, model)
    module = tiny_module(tiny_config(head_jumps=True), initial_weights=str(tmp_path), trainable=["head", "decoder"])
    fit(tmp_path / "run", module, [tiny_batch(CONFIG)] * 2)
    start = model.state_dict()
    changed = {
        name for name, tensor in module.model.state_dict().items() if not torch.equal(tensor, start.get(name, tensor))
    }
    assert {name.split(".")[0] for name in changed} == {"head", "decoder"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": ["head"]}, r"trainable \['head'\] without initial_weights"),
        ({"trainable": [], "initial_weights": "weights"}, r"trainable \[\]: name parts"),
        (
            {"trainable": ["tail"], "initial_weights": "weights"},
            r"trainable \['tail'\]: name parts of the model: transf",
        ),
    ],
)
def test_parts_that_cannot_be_trained_alone(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        tiny_module(**options)
