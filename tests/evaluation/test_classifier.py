from unittest.mock import Mock

import lightning
import pytest
import torch

from framework.core.errors import CheckpointError, ConfigError
from framework.data.images.transforms import ImageConfig
from framework.data.loading.batch import ImageBatch
from framework.data.module import ShardDataModule
from framework.evaluation.classifier import (
    ClassifierConfig,
    ClassifierModule,
    ImageClassifier,
    load_classifier,
    save_classifier,
    shifted,
)
from framework.evaluation.features import ClassifierFeatures, extract_features
from framework.testing.faults import make_checkpoint
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import StrategyConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    # Lightning 2.6 under torch 2.13.
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
]


def trainer(max_epochs: int) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=abs(max_epochs),
        use_distributed_sampler=False,
        strategy=make_strategy(StrategyConfig(), accelerator="cpu"),
    )


@pytest.fixture(scope="module")
def data(digit_shards) -> ShardDataModule:
    training, held_out = (str(path) for path in digit_shards)
    return ShardDataModule(train=training, validation=held_out, images=ImageConfig(size=8, channels=1), batch_size=64)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A classifier trained on digits for a few epochs: its checkpoint and the metrics of held-out digits."""
    lightning.seed_everything(0, verbose=False)
    module = ClassifierModule(num_classes=10, channels=1, width=16, name="digits_classifier")
    digits_trainer = trainer(5)
    digits_trainer.fit(module, data)
    path = tmp_path_factory.mktemp("classifier") / "last"
    digits_trainer.save_checkpoint(path)
    return path, digits_trainer.callback_metrics


@pytest.mark.slow
def test_a_few_seconds_teach_it_digits(trained, digits):
    path, metrics = trained
    assert metrics["accuracy/validation"] >= 0.95
    assert metrics["loss/cross_entropy_nats"] < 0.5
    _, held_out = digits
    network = ClassifierFeatures(str(path))
    assert network.name == "digits_classifier"
    assert network.channels == 1
    features = extract_features(network, held_out, batch_size=100)
    assert features.shape == (360, 64)
    named = network.class_logits(features).argmax(dim=1)
    share = (named == torch.from_numpy(held_out.labels)).float().mean().item()
    assert share == pytest.approx(metrics["accuracy/validation"].item())


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (9, 3), (32, 3)])
def test_any_size_and_channels(size, channels):
    classifier = ImageClassifier(ClassifierConfig(num_classes=5, channels=channels, width=8))
    images = torch.zeros(2, channels, size, size)
    assert classifier(images).shape == (2, 5)
    assert classifier.features(images).shape == (2, 32)


def test_safetensors_round_trip(tmp_path):
    classifier = ImageClassifier(ClassifierConfig(num_classes=5, channels=3, width=8, name="five"))
    save_classifier(tmp_path / "five.safetensors", classifier)
    again = load_classifier(tmp_path / "five.safetensors")
    images = torch.randn(2, 3, 16, 16)
    assert again.config == classifier.config
    assert torch.equal(again(images), classifier(images))


@pytest.mark.parametrize("settings", [{"num_classes": 1}, {"num_classes": 5, "width": 12}])
def test_config_refuses(settings):
    with pytest.raises(ConfigError):
        ClassifierConfig(**settings)


def test_training_without_an_end_is_refused(data):
    with pytest.raises(ConfigError, match="max_epochs"):
        trainer(-1).fit(ClassifierModule(num_classes=10, channels=1, width=8), data)


def test_load_refuses(tmp_path):
    with pytest.raises(CheckpointError, match="none does not exist"):
        load_classifier(tmp_path / "none")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_classifier(tmp_path / "none.safetensors")
    for name, words in (("bad", "no checkpoint in"), ("bad.safetensors", "cannot be loaded")):
        (tmp_path / name).write_bytes(b"damaged")
        with pytest.raises(CheckpointError, match=words):
            load_classifier(tmp_path / name)
    tensors = {"head.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="no image classifier"):
        load_classifier(make_checkpoint(tmp_path / "other", tensors, {}))
    shape = {"num_classes": 5, "channels": 3, "width": 8, "name": "five"}
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_classifier(make_checkpoint(tmp_path / "empty", tensors, {"classifier": shape}))


def test_a_stem_of_two_pixels_halves_the_maps_and_keeps_the_features():
    whole, halved = (
        ImageClassifier(ClassifierConfig(num_classes=3, channels=1, width=8, stem_stride=stride)) for stride in (1, 2)
    )
    images = torch.rand(2, 1, 16, 16)
    assert next(whole.maps(images)).shape[2] == 16
    assert next(halved.maps(images)).shape[2] == 8
    assert whole.features(images).shape == halved.features(images).shape == (2, 32)
    with pytest.raises(ConfigError, match="stem_stride 3"):
        ClassifierConfig(num_classes=3, stem_stride=3)


def test_shifted_images_are_parts_of_mirrored_ones():
    torch.manual_seed(0)
    images = torch.arange(32.0).view(2, 1, 4, 4)
    seen = set()
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="reflect")
    places = [(row, column) for row in range(3) for column in range(3)]
    for _ in range(60):
        for number, image in enumerate(shifted(images, 1)):
            (place,) = ((r, c) for r, c in places if torch.equal(image, padded[number, :, r : r + 4, c : c + 4]))
            seen.add((number, place))
    assert seen == {(number, place) for number in (0, 1) for place in places}
    assert shifted(images, 0) is images


def test_batch_norm_is_kept_and_forgets_the_batch(tmp_path):
    torch.manual_seed(0)
    classifier = ImageClassifier(ClassifierConfig(num_classes=3, width=8, norm="batch"))
    images = torch.rand(6, 3, 8, 8) * 2 - 1
    untrained = classifier.eval()(images)
    classifier.train()(images)
    save_classifier(tmp_path / "batch.safetensors", classifier)
    loaded = load_classifier(tmp_path / "batch.safetensors")
    logits = loaded(images)
    assert torch.equal(logits, classifier.eval()(images))
    assert not torch.allclose(logits, untrained), "the running mean and variance count"
    torch.testing.assert_close(loaded(images[:1]), logits[:1])
    # Files from before there was a choice say nothing of it.
    assert ClassifierConfig(num_classes=3).norm == "group"


def test_options_out_of_range():
    # A TypeError where types are checked at run time.
    with pytest.raises((ConfigError, TypeError), match=r"norm.*'layer'"):
        ClassifierConfig(num_classes=3, norm="layer")
    with pytest.raises(ConfigError, match=r"classifier label_smoothing 1.0: give 0 or more, below 1"):
        ClassifierModule(num_classes=3, width=8, label_smoothing=1.0)


def test_label_smoothing_spreads_the_label():
    torch.manual_seed(0)
    module = ClassifierModule(num_classes=4, width=8, label_smoothing=0.2)
    batch = ImageBatch(images=torch.rand(2, 3, 8, 8), labels=torch.tensor([1, 3]), indices=torch.arange(2), epoch=0)
    logs = module.classifier(batch.images).log_softmax(1)
    # 0.8 on the label and 0.2 on all four.
    expected = -(0.8 * logs[[0, 1], [1, 3]] + 0.2 * logs.mean(1)).mean()
    module.log = Mock(spec=module.log)
    assert module.training_step(batch, 0).item() == pytest.approx(expected.item(), rel=1e-5)
