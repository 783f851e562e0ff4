"""Sets of images to be measured: `.npz` files as the ADM evaluator reads them, and shard sets, as one record."""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from framework.core.console import tracked
from framework.core.errors import DataError
from framework.core.io import atomic_write
from framework.core.shapes import Images, Labels
from framework.data.images.transforms import ImageTransform
from framework.data.shards.reader import ShardSet

_HINT = "give an .npz with arr_0: uint8 [sample, height, width, 1 or 3], and optionally arr_1: integer [sample]"
_ARRAYS = ("arr_0", "arr_1", "classes", "mu", "sigma")


@dataclass(frozen=True, kw_only=True)
class FeatureStatistics:
    """Mean and covariance of features, as ADM's reference batches hold them of Inception's (`mu`, `sigma`)."""

    mean: Float[np.ndarray, "feature"]
    covariance: Float[np.ndarray, "feature feature"]


@dataclass(frozen=True, kw_only=True)
class SampleSet:
    """Images as they are stored and shown, 0 to 255, in memory.

    Args:
        images: uint8, channels last; one channel is gray, three are RGB.
        labels: class of each image, or None where it is not known.
        name: where the images come from, for reports and errors.
        classes: names of the classes by their numbers, or None where they are not known.
        statistics: of Inception's features of a larger set that the images are from, or None.
    """

    images: UInt8[np.ndarray, "sample height width channel"]
    labels: Int64[np.ndarray, "sample"] | None = None
    name: str = "samples"
    classes: tuple[str, ...] | None = None
    statistics: FeatureStatistics | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        """1 for gray, 3 for RGB."""
        return self.images.shape[-1]

    @property
    def is_gray(self) -> bool:
        """Whether nothing is lost by keeping one channel."""
        return self.channels == 1 or bool((self.images == self.images[..., :1]).all())

    @classmethod
    def from_images(cls, images: Images, labels: Labels | None = None, *, name: str = "samples") -> "SampleSet":
        """The record of images in [-1, 1]. Raises DataError where a value is not finite.

        Args:
            images: in [-1, 1].
            labels: class numbers; None where there are none.
            name: of the set, for messages.
        """
        if not torch.isfinite(images).all():
            raise DataError(f"{name} has images with values that are not finite", hint="use another checkpoint")
        pixels = quantize_images(images.detach()).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return cls(images=pixels, labels=None if labels is None else labels.cpu().to(torch.int64).numpy(), name=name)

    def pixels(self, start: int, stop: int) -> UInt8[Tensor, "sample channel height width"]:
        """Images `start` to `stop` in torch's order of axes."""
        return torch.from_numpy(self.images[start:stop]).permute(0, 3, 1, 2).contiguous()

    def with_channels(self, channels: int) -> "SampleSet":
        """The same images in 1 or 3 channels: gray is repeated, RGB is reduced only where nothing is lost.

        Raises:
            DataError: colour images cannot become gray.
        """
        if channels == self.channels:
            return self
        if channels == 1 and not self.is_gray:
            raise DataError(f"{self.name} has colour images", hint="use a network that takes 3 channels")
        images = self.images[..., :1] if channels == 1 else self.images.repeat(channels, axis=-1)
        return replace(self, images=np.ascontiguousarray(images))


@dataclass(frozen=True, kw_only=True)
class ReferenceStatistics:
    """Real images of which nothing is left but the statistics of their Inception features, as several tools keep them.

    Attributes:
        statistics: mean and covariance.
        name: where they come from, for reports and errors.
    """

    statistics: FeatureStatistics
    name: str


def quantize_images(images: Float[Tensor, "*axes"]) -> UInt8[Tensor, "*axes"]:
    """[-1, 1] to 0 ... 255, rounded to nearest and clamped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def dequantize_images(pixels: UInt8[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """0 ... 255 to [-1, 1]: the inverse of `quantize_images` on its range."""
    return pixels.float() / 127.5 - 1


def write_npz(path: str | Path, samples: SampleSet) -> None:
    """Write `arr_0` (uint8 NHWC RGB, what ADM's evaluator.py reads) and, where known, `arr_1` (int64 labels).

    That evaluator takes three channels only, so gray is repeated (ours). The names of the classes, where known, are
    `classes` (ours; it reads past them). Atomic; makes the folder. Raises OSError.
    """
    arrays: dict[str, Any] = {"arr_0": samples.with_channels(3).images}
    if samples.labels is not None:
        arrays["arr_1"] = samples.labels
    if samples.classes is not None:
        arrays["classes"] = np.array(samples.classes, dtype=np.str_)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(path)) as file:
        np.savez(file, **arrays)


def read_npz(path: str | Path) -> SampleSet:
    """Read what `write_npz`, ADM's image_sample.py and their kin write, and ADM's reference batches.

    Raises:
        DataError: no such file, not an npz, no `arr_0`, or arrays of another type or shape.
    """
    return _samples_of(_read_arrays(path), str(path))


def _samples_of(arrays: Mapping[str, np.ndarray], path: str) -> SampleSet:
    if "arr_0" not in arrays:
        alone = " but mu and sigma alone, which serve as a reference only" if "mu" in arrays else ""
        raise DataError(f"{path} has no arr_0{alone}", hint=_HINT)
    images, labels = arrays["arr_0"], arrays.get("arr_1")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise DataError(f"arr_0 of {path} is {images.dtype} {list(images.shape)}", hint=_HINT)
    if labels is not None and (labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer)):
        raise DataError(f"arr_1 of {path} is {labels.dtype} {list(labels.shape)}", hint=_HINT)
    return SampleSet(
        images=images,
        labels=None if labels is None else labels.astype(np.int64),
        name=path,
        classes=_class_names(arrays, path),
        statistics=_statistics(arrays, path),
    )


def _read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz that somebody reads. Raises DataError."""
    try:
        # Opened here, since numpy leaves it open where the archive is damaged.
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in _ARRAYS if key in file}
    except FileNotFoundError:
        raise DataError(f"no samples file {path}", hint="check the path") from None
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as .npz ({error})", hint=_HINT) from error


def _class_names(arrays: Mapping[str, np.ndarray], path: str) -> tuple[str, ...] | None:
    names = arrays.get("classes")
    if names is None:
        return None
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(f"classes of {path} is {names.dtype} {list(names.shape)}", hint="give names: strings [class]")
    return tuple(names.tolist())


def _statistics(arrays: Mapping[str, np.ndarray], path: str) -> FeatureStatistics | None:
    if "mu" not in arrays or "sigma" not in arrays:
        return None
    mean, covariance = arrays["mu"], arrays["sigma"]
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape or {mean.dtype.kind, covariance.dtype.kind} != {"f"}:
        problem = f"mu and sigma of {path} are {mean.dtype} {list(mean.shape)} and {list(covariance.shape)}"
        raise DataError(problem, hint="give a mean [feature] and a covariance [feature, feature]")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise DataError(f"mu and sigma of {path} are not finite", hint="fetch the file again")
    return FeatureStatistics(mean=mean, covariance=covariance)


def read_shards(
    path: str | Path, *, limit: int | None = None, image_size: int | None = None, channels: Literal[1, 3] = 3
) -> SampleSet:
    """Read a shard set into memory, cropped and resized as for training, without random changes.

    Args:
        path: folder or URL of the set.
        limit: at most so many images, spread evenly over the set: shards are sorted by class.
        image_size: side in pixels; None: as stored, where all images are squares of one size.
        channels: 1 or 3.

    Raises:
        DataError: shards that are missing or damaged, no images, or images of several sizes and no `image_size`.
    """
    shards = ShardSet(path)
    total = len(shards)
    count = total if limit is None else min(limit, total)
    if count < 1:
        raise DataError(f"{path} gives no images (limit: {limit})", hint="give shards with images and a limit above 0")
    image_size = image_size or _common_side(shards)
    transform = ImageTransform(size=image_size, channels=channels, read=shards.manifest.read)
    images = np.empty((count, image_size, image_size, channels), np.uint8)
    labels = np.empty(count, np.int64)
    for row in tracked(range(count), f"images of {path}"):
        number = row * total // count
        data, labels[row] = shards.read(number)
        image = transform(data, name=shards.describe(number))
        images[row] = quantize_images(image).permute(1, 2, 0).numpy()
    return SampleSet(images=images, labels=labels, name=str(path), classes=shards.classes)


def read_samples(
    path: str | Path, *, limit: int | None = None, image_size: int | None = None, channels: Literal[1, 3] = 3
) -> SampleSet:
    """Read an `.npz` or a folder of shards. `limit`, `image_size` and `channels` are those of `read_shards`.

    An `.npz` is read whole and as it is: what was generated is what is judged.

    Args:
        path: a shard set, an `.npz` file or a folder.
        limit: images at most.
        image_size: side in pixels that images are resized to; None keeps theirs.
        channels: 1 or 3.
    """
    if Path(path).is_dir():
        return read_shards(path, limit=limit, image_size=image_size, channels=channels)
    return read_npz(path)


def read_reference(path: str | Path, *, limit: int | None = None, image_size: int) -> SampleSet | ReferenceStatistics:
    """Read real images as `read_samples` does, or an `.npz` with `mu` and `sigma` alone.

    Args:
        path: a shard set or an `.npz` file.
        limit: images at most.
        image_size: side in pixels that images of shards are resized to.
    """
    if Path(path).is_dir():
        return read_shards(path, limit=limit, image_size=image_size)
    arrays = _read_arrays(path)
    if "arr_0" not in arrays and (statistics := _statistics(arrays, str(path))) is not None:
        return ReferenceStatistics(statistics=statistics, name=str(path))
    return _samples_of(arrays, str(path))


def _common_side(shards: ShardSet) -> int:
    sizes = shards.manifest.image_sizes
    sides = {side for size in sizes for side in size.split("x")}
    if len(sides) != 1:
        raise DataError(
            f"{shards.path} has images of {len(sizes)} sizes, such as {next(iter(sizes))}", hint="give image_size"
        )
    return int(sides.pop())
