"""Bad samples are counted as a metric."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from framework.data.images.transforms import ImageConfig
from framework.data.loading.bad_samples import BadSamples
from framework.data.loading.batch import ImageBatch
from framework.data.loading.loader import LoadingConfig
from framework.data.module import ShardDataModule
from framework.data.sampling.order import OrderConfig
from framework.testing.images import make_image_shards
from tests.data.loading.test_loader import BAD, NUM_SAMPLES, spoil


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("loader")
    make_image_shards(path, per_class=NUM_SAMPLES // 2, size=8)
    return spoil(path / "shards", BAD)


class Mean(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        return self.layer(batch.images.mean().view(1)).sum()

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Counts(Callback):
    def __init__(self) -> None:
        self.counts: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        self.counts.append(float(trainer.callback_metrics["data/bad_samples"]))


@pytest.mark.filterwarnings("ignore:.*the next good sample stands in for it")
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_bad_samples_are_a_metric(shards: str):
    data = ShardDataModule(
        train=shards,
        batch_size=4,
        images=ImageConfig(size=8),
        order=OrderConfig(shuffle="none"),
        loading=LoadingConfig(on_bad_sample="skip"),
    )
    counts = Counts()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_steps": 8}
    Trainer(accelerator="cpu", enable_model_summary=False, callbacks=[BadSamples(), counts], **options).fit(
        Mean(), data
    )
    # The first batch has 3, and looked at 4 in its place.
    assert counts.counts == [2, 2, 3, 3, 3, 3, 3, 3]
