"""A small residual classifier: a feature network for data that Inception does not suit, such as digits."""

import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float, Shaped
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from framework.core.errors import CheckpointError, ConfigError
from framework.core.io import atomic_write
from framework.core.serialization import from_json, to_json
from framework.core.shapes import Images
from framework.data.loading.batch import ImageBatch
from framework.evaluation.vision_network import FeatureMap
from framework.training.checkpoint.layout import Manifest
from framework.training.checkpoint.read import find_checkpoint, read_state, read_tensors
from framework.training.length import total_steps

CHECKPOINT_KEY = "classifier"
_CLASSES_KEY = "class_names"
GROUPS = 8
"""Groups of channels that are normalised together by group norm."""
Norm = Literal["group", "batch"]


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The architecture, in plain types.

    Args:
        num_classes: classes to tell apart.
        channels: image channels, 1 or 3.
        width: channels of the first stage, a multiple of 8; the features are 4 times as many.
        stem_stride: 2 halves the images first, which makes everything after it four times cheaper.
        norm: group, whatever the batch; or batch, which learns natural images in fewer steps, from batches of about 32
            on: it normalises by the images of a process's batch in training, by their running mean and variance after.
        name: stands in the names of the metrics measured with it.
    """

    num_classes: int
    channels: int = 3
    width: int = 32
    stem_stride: int = 1
    norm: Norm = "group"
    name: str = "classifier"

    def __post_init__(self) -> None:
        if self.width < GROUPS or self.width % GROUPS:
            raise ConfigError(f"classifier width {self.width}", hint=f"give a multiple of {GROUPS}")
        if self.stem_stride not in (1, 2):
            raise ConfigError(f"classifier stem_stride {self.stem_stride}", hint="give 1 or 2")
        if self.norm not in get_args(Norm):
            raise ConfigError(f"classifier norm {self.norm!r}", hint=f"give one of {', '.join(get_args(Norm))}")
        if self.num_classes < 2:
            raise ConfigError(f"classifier of {self.num_classes} classes", hint="give 2 or more")


def _norm(norm: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(GROUPS, channels)


class ResidualBlock(nn.Module):
    """`x + conv(act(norm(conv(act(norm(x))))))` (He et al. 2016, pre-activation; SiLU and group norm: ours).

    Args:
        in_channels: of the input, a multiple of `GROUPS`.
        out_channels: of the output, a multiple of `GROUPS`.
        stride: of the first convolution: 1 keeps the size, 2 halves it.
        norm: see `ClassifierConfig`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.norm1 = _norm(norm, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = _norm(norm, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        same = in_channels == out_channels and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(
        self, x: Float[Tensor, "batch in_channel height width"]
    ) -> Float[Tensor, "batch out_channel out_height out_width"]:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(y)))


class ImageClassifier(nn.Module):
    """Three stages of two residual blocks at full, half and quarter size, then the mean over positions.

    Images are in [-1, 1], of any size from 8.

    Attributes:
        class_names: names of the classes by their numbers, where what it was loaded from tells.
    """

    def __init__(self, config: ClassifierConfig, class_names: tuple[str, ...] | None = None) -> None:
        super().__init__()
        self.config = config
        self.class_names = class_names
        widths = [config.width, 2 * config.width, 4 * config.width]
        blocks: list[nn.Module] = [nn.Conv2d(config.channels, config.width, 3, config.stem_stride, padding=1)]
        for stage, width in enumerate(widths):
            stride = 1 if stage == 0 else 2
            blocks.append(ResidualBlock(widths[max(stage - 1, 0)], width, stride, config.norm))
            blocks.append(ResidualBlock(width, width, 1, config.norm))
        self.trunk = nn.Sequential(*blocks, _norm(config.norm, widths[-1]), nn.SiLU())
        self.head = nn.Linear(widths[-1], config.num_classes)

    def features(self, images: Images) -> Float[Tensor, "batch feature"]:
        """The penultimate layer, `4 * width` values."""
        return self.trunk(images).mean(dim=(2, 3))

    def maps(self, images: Images) -> Iterator[FeatureMap]:
        """What each layer of the trunk gives."""
        x = images
        for layer in self.trunk:
            x = layer(x)
            yield x

    def forward(self, images: Images) -> Float[Tensor, "batch class"]:
        """Logits."""
        return self.head(self.features(images))


class ClassifierModule(LightningModule):
    """Trains an `ImageClassifier` by cross-entropy with AdamW and one cycle of the learning rate.

    Args:
        num_classes: see `ClassifierConfig`, as for the next four and `name`.
        channels: of the images.
        width: of the network.
        stem_stride: of the network.
        norm: of the network.
        max_shift: pixels that a training image is moved by at most in each direction; edges are mirrored.
        name: of the network, by which distances in its features are called.
        learning_rate: its peak.
        weight_decay: AdamW's, on every parameter.
        label_smoothing: the part of a label's probability that is spread over all classes, from 0 to below 1.

    Raises:
        ConfigError: a value out of its range.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int = 3,
        width: int = 32,
        stem_stride: int = 1,
        norm: Norm = "group",
        max_shift: int = 0,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.05,
        label_smoothing: float = 0.0,
        name: str = "classifier",
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        if max_shift < 0:
            raise ConfigError(f"classifier max_shift {max_shift}", hint="give 0 or more pixels")
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"classifier label_smoothing {label_smoothing}", hint="give 0 or more, below 1")
        self.max_shift, self.label_smoothing = max_shift, label_smoothing
        config = ClassifierConfig(
            num_classes=num_classes, channels=channels, width=width, stem_stride=stem_stride, norm=norm, name=name
        )
        self.classifier = ImageClassifier(config)
        self.validation_accuracy = MulticlassAccuracy(num_classes, average="micro")

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Float[Tensor, ""]:
        # Convolutions of the CPU and of tensor cores want the channels last, and keep them there; values are the same.
        images = shifted(batch.images, self.max_shift).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(self.classifier(images), batch.labels, label_smoothing=self.label_smoothing)
        self.log("loss/cross_entropy_nats", loss, batch_size=len(batch.labels))
        return loss

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        self.validation_accuracy(self.classifier(batch.images), batch.labels)
        self.log("accuracy/validation", self.validation_accuracy, prog_bar=True, batch_size=len(batch.labels))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        num_steps = total_steps(self.trainer)
        if num_steps < 0:
            raise ConfigError(
                "training without an end leaves the learning rate's cycle without one",
                hint="set trainer.max_epochs or trainer.max_steps",
            )
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        checkpoint[CHECKPOINT_KEY] = to_json(self.classifier.config)


def shifted(images: Images, most: int) -> Images:
    """Each image moved by a whole number of pixels, up to `most` in each direction, its edges mirrored."""
    if not most:
        return images
    batch, _, height, width = images.shape
    padded = F.pad(images, (most,) * 4, mode="reflect")
    start = torch.randint(2 * most + 1, (2, batch, 1), device=images.device)
    rows = start[0] + torch.arange(height, device=images.device)
    columns = start[1] + torch.arange(width, device=images.device)
    image = torch.arange(batch, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def save_classifier(path: str | Path, classifier: ImageClassifier) -> None:
    """Write the weights as .safetensors with the architecture in its metadata, atomically."""
    metadata = {CHECKPOINT_KEY: json.dumps(to_json(classifier.config))}
    if classifier.class_names is not None:
        metadata[_CLASSES_KEY] = json.dumps(classifier.class_names)
    weights = {key: value.contiguous() for key, value in classifier.state_dict().items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(path)) as file:
        file.write(save(weights, metadata))


def load_classifier(path: str | Path) -> ImageClassifier:
    """Rebuild a classifier from `save_classifier`'s file or a Lightning checkpoint, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged or of another model.
    """
    hint = "give a checkpoint that `framework fit` wrote for ClassifierModule, or a file of save_classifier"
    try:
        read = _read_safetensors if Path(path).suffix == ".safetensors" else _read_lightning
        saved = read(Path(path))
        config = from_json(ClassifierConfig, saved.config, allow_missing=True)
        names = saved.class_names if len(saved.class_names or ()) == config.num_classes else None
        classifier = ImageClassifier(config, names)
        classifier.load_state_dict(saved.weights)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint {path}", hint="check the path") from None
    except KeyError:
        raise CheckpointError(f"{path} holds no image classifier", hint=hint) from None
    except (OSError, RuntimeError, TypeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be loaded ({type(error).__name__})", hint=hint) from error
    return classifier.eval()


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """What a file holds of a classifier: its configuration in JSON, weights, and names of classes, if it has them."""

    config: object
    weights: Mapping[str, Shaped[Tensor, "..."]]
    class_names: tuple[str, ...] | None


def _read_safetensors(path: Path) -> _Saved:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        names = json.loads(metadata.get(_CLASSES_KEY, "null"))
        return _Saved(
            config=json.loads(metadata[CHECKPOINT_KEY]),
            weights={key: file.get_tensor(key) for key in file.keys()},  # noqa: SIM118  (not a mapping)
            class_names=None if names is None else tuple(map(str, names)),
        )


def _read_lightning(path: Path) -> _Saved:
    checkpoint = find_checkpoint(path)
    data = Manifest.read(checkpoint).data
    return _Saved(
        config=read_state(checkpoint)[CHECKPOINT_KEY],
        weights=read_tensors(checkpoint, "classifier."),
        class_names=None if data is None else data.classes,
    )
