"""CIFAR-10 at 32x32: `pra` and `teacher_forced`, trained for equal times, their distances and grids."""

import io
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from framework.bench.gpu.session import Session
from framework.bench.gpu.shapes import CIFAR, TINY, BareLoop
from framework.core.shapes import Images, Labels
from framework.evaluation.classifier import ClassifierConfig, ImageClassifier
from framework.evaluation.distances import frechet_distance
from framework.evaluation.grid import save_grid
from framework.pra.generate import balanced_labels, generate
from framework.pra.network.config import VariantName
from framework.pra.sampling import SamplerConfig

IMAGES = "GPU_BENCH_CIFAR10"
"""Variable that names a zip of train/CLASS/*.jpg and test/CLASS/*.jpg."""
_SHARE_OF_CLASSIFIER = 0.12


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images and their classes on the device, bytes 0..255, channels first."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, size: int, *, seed: int) -> Iterator[tuple[Images, Labels]]:
        """Random images without end, mirrored at random, in [-1, 1].

        Args:
            size: of a batch.
            seed: of the order.
        """
        generator = torch.Generator(self.pixels.device).manual_seed(seed)
        draw = partial(torch.randint, generator=generator, device=self.pixels.device)
        while True:
            chosen = draw(len(self), (size,))
            images = self.pixels[chosen].float() / 127.5 - 1
            mirrored = draw(2, (size, 1, 1, 1)).bool()
            yield torch.where(mirrored, images.flip(3), images), self.labels[chosen]


def read_zip(path: Path, part: str, device: torch.device, most: int) -> Pictures:
    """Images of a part of a zip, evenly over its files.

    Args:
        path: of the zip.
        part: `train` or `test`, the first folder.
        device: gets them.
        most: images that are read.
    """
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith(f"{part}/") and name.endswith(".jpg"))
        names = [names[index * len(names) // most] for index in range(most)] if len(names) > most else names
        classes = sorted({name.split("/")[1] for name in names})
        arrays = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor([classes.index(name.split("/")[1]) for name in names])
    return Pictures(pixels=pixels.to(device), labels=labels.to(device))


def made_pictures(count: int, size: int, device: torch.device, *, seed: int) -> Pictures:
    """Blots whose brightness tells the class, for a rehearsal.

    Args:
        count: images.
        size: side.
        device: gets them.
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    noise = torch.randint(25, (count, 3, size, size), generator=generator)
    pixels = (labels[:, None, None, None] * 23 + noise).to(torch.uint8)
    return Pictures(pixels=pixels.to(device), labels=labels.to(device))


def compare_rows(session: Session) -> None:
    """A classifier for its features, then both rows for equal times, then their samples."""
    config = TINY if session.rehearse else CIFAR
    found = os.environ.get(IMAGES)
    if session.rehearse:
        train, test = (made_pictures(64, config.image_size, session.device, seed=seed) for seed in (0, 1))
    elif found is None or not Path(found).is_file():
        session.note("images", skipped=f"needs CIFAR-10 as a zip; name it by {IMAGES}")
        return
    else:
        train = read_zip(Path(found), "train", session.device, 50_000)
        test = read_zip(Path(found), "test", session.device, 10_000)
    total = 4.0 if session.rehearse else session.left()
    session.note("images", training=len(train), held_out=len(test))
    classifier = ImageClassifier(ClassifierConfig(num_classes=10, width=16 if session.rehearse else 64))
    classifier.to(session.device)
    accuracy = _train_classifier(session, classifier, train, test, _SHARE_OF_CLASSIFIER * total)
    features = partial(_features, classifier)
    reference = features(test.pixels)
    session.note(
        "classifier", accuracy=accuracy, frechet_of_training_images=frechet_distance(features(train.pixels), reference)
    )
    # What is left after the classifier: half for each row, a quarter of that for compilation, samples and distances.
    seconds = 0.75 * (1.0 if session.rehearse else session.left() / 2 - 3)
    names: tuple[VariantName, ...] = ("pra", "teacher_forced")
    for name in names:
        session.attempt(name, partial(_row, session, name, train, features, reference, seconds))


def _train_classifier(
    session: Session, classifier: ImageClassifier, train: Pictures, test: Pictures, seconds: float
) -> float:
    """Trains for a time; returns the share of held-out images that are named right.

    Args:
        session: of the part.
        classifier: on the device.
        train: to train on.
        test: held out.
        seconds: to train.
    """
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.05)
    size, end = (16 if session.rehearse else 256), time.monotonic() + seconds
    for number, (images, labels) in enumerate(train.batches(size, seed=0)):
        with torch.autocast(session.device.type, torch.bfloat16):
            loss = F.cross_entropy(classifier(images).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        # The host would run ahead of the device.
        if number % 20 == 0 and session.now() and time.monotonic() > end:
            break
    classifier.eval().requires_grad_(False)
    predicted = torch.cat([classifier(part.float() / 127.5 - 1).argmax(1) for part in test.pixels.split(1000)])
    return (predicted == test.labels).float().mean().item()


@torch.no_grad()
def _features(classifier: nn.Module, pixels: Tensor) -> Tensor:
    assert isinstance(classifier, ImageClassifier)
    return torch.cat([classifier.features(part.float() / 127.5 - 1) for part in pixels.split(1000)])


def _row(
    session: Session,
    variant: VariantName,
    train: Pictures,
    features: Callable[[Tensor], Tensor],
    reference: Tensor,
    seconds: float,
) -> dict[str, object]:
    """One variant: trained for a time, sampled, measured.

    Args:
        session: of the part.
        variant: of PRA.
        train: to train on.
        features: of bytes.
        reference: features of the held-out images.
        seconds: to train, compilation not counted.
    """
    config = replace(TINY if session.rehearse else CIFAR, variant=variant)
    loop = BareLoop(session, config, compiled="blocks", learning_rate=5e-4)
    batches = train.batches(8 if session.rehearse else 256, seed=1)
    for _ in range(2):
        loop.step(*next(batches))
    end = session.now() + seconds
    losses: list[Tensor] = []
    while session.now() < end:
        losses += [loop.step(*next(batches)) for _ in range(2 if session.rehearse else 20)]
    num_images, steps = (20, 2) if session.rehearse else (2000, 25)
    labels = balanced_labels(num_images, range(10))
    sampler = SamplerConfig(steps=steps, guidance=1.5)
    model = loop.ema if loop.num_steps > 500 else loop.model
    model.eval()
    drawn = generate(model, labels, seed=0, sampler=sampler, batch_size=1000, device=session.device)
    images = torch.cat(list(drawn))
    save_grid(session.folder / f"cifar_{variant}.png", images[:100], columns=10)
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).to(session.device)
    return {
        "steps": loop.num_steps,
        "seconds": seconds,
        "last_loss": torch.stack(losses[-20:]).mean().item(),
        "samples": num_images,
        "frechet": frechet_distance(features(pixels), reference),
        "grid": f"cifar_{variant}.png",
    }
