"""`framework bench data`: how fast the loader is, against nothing but decoding and against WebDataset's own pipeline.

One run measures all in turns, several times, and gives the best of each: on a shared machine the ratios are what can
be trusted, not the numbers.
"""

import io
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.table import Table
from webdataset.compat import WebDataset, WebLoader

from framework.bench.image_shards import make_jpeg_shards, repeat_shards
from framework.bench.record import check_record, machine_of, write_record
from framework.core.compat.torch_compat import worker_pids
from framework.core.console import results, tracked, working
from framework.core.errors import ConfigError
from framework.core.serialization import to_json
from framework.data.images.decoding import decode_pixels
from framework.data.images.transforms import ImageConfig
from framework.data.loading.loader import LoadingConfig, worker_context
from framework.data.loading.worker_limits import SHARED_MEMORY
from framework.data.module import ShardDataModule
from framework.data.sampling.order import OrderConfig
from framework.data.shards.reader import ShardSet

IMAGENET_SAMPLES = 1_300_000
MOST_IMAGES = 8192
"""Of the set that is made to measure on."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Images per second of one set with one number of workers, each the best of the rounds.

    Attributes:
        size: side of the images in pixels.
        num_workers: processes that decode.
        decoding: reading the bytes and decoding them in as many processes, and nothing else.
        pillow: the same by Pillow, the usual decoder.
        loader: batches of our loader, with random crops and flips, as bytes in the main process.
        normalised: the same as float32 in the main process, which trains on no GPU.
        webdataset: WebDataset(...).shuffle().decode("torchrgb").to_tuple().batched() in a WebLoader.
        of_decoding: loader / decoding, the median over the rounds.
        of_pillow: loader / pillow, the median over the rounds.
        of_webdataset: normalised / webdataset, the median over the rounds.
    """

    size: int
    num_workers: int
    decoding: float
    pillow: float
    loader: float
    normalised: float
    webdataset: float
    of_decoding: float
    of_pillow: float
    of_webdataset: float


@dataclass(frozen=True, kw_only=True)
class Resume:
    """A start in mid-epoch, and its workers' memory.

    Attributes:
        num_samples: of the index.
        first_batch_seconds: from the opening of the set to the first batch, with 0 workers.
        opened_shards: shards that were opened for that batch, of all.
        num_shards: all.
        worker_private_mib: memory of a worker's own after 50 batches, the mean of two. The places for batches, which it
            shares with the main process, are not in it, though Linux calls a page private that this one has not read.
        worker_private_mib_small: the same with an index of `num_samples_small`.
        num_samples_small: of the set that the large index repeats.
    """

    num_samples: int
    first_batch_seconds: float
    opened_shards: int
    num_shards: int
    worker_private_mib: float
    worker_private_mib_small: float
    num_samples_small: int


def bench_data(
    out: Path | None = None, *, sizes: tuple[int, ...] = (32, 256), workers: tuple[int, ...] = (1, 2), rounds: int = 5
) -> dict[str, Any]:
    """Measures the loader.

    Args:
        out: JSON file for the numbers.
        sizes: sides of the images in pixels.
        workers: numbers of processes.
        rounds: how often everything is measured.

    Returns:
        The numbers, as in the file.

    Raises:
        ConfigError: a number out of range.
    """
    check_record(out)
    for name, values, least in (("sizes", sizes, 8), ("workers", workers, 1), ("rounds", (rounds,), 1)):
        if not values or min(values) < least:
            raise ConfigError(f"{name} is {values}", hint=f"give at least {least}")
    speeds: list[Speed] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in tracked(sizes, "sizes", bar=False):
            # About as many pixels of each size, for about as long a measurement.
            num_images = max(512, min(MOST_IMAGES, 2**25 // size**2 // 8 * 8))
            shards = make_jpeg_shards(Path(folder) / str(size), size=size, num_images=num_images)
            for each in workers:
                speeds.append(measure_speed(shards, size=size, num_workers=each, rounds=rounds))
        first = Path(folder) / str(sizes[0]) / "shards"
        with working("resuming", bar=False):
            resume = measure_resume(first, Path(folder) / "large", size=sizes[0], num_samples=IMAGENET_SAMPLES)
    record = {
        "machine": machine_of(),
        "speed": [to_json(speed) for speed in speeds],
        "resume": to_json(resume),
    }
    _show(speeds, resume)
    write_record(out, record)
    return record


def measure_speed(shards: Path, *, size: int, num_workers: int, rounds: int) -> Speed:
    """Measures one set with one number of workers.

    Args:
        shards: the set.
        size: side of the images in pixels.
        num_workers: processes that decode.
        rounds: how often everything is measured.
    """
    batch_size = 256 if size <= 64 else 32
    data = ShardDataModule(
        train=str(shards),
        batch_size=batch_size,
        images=ImageConfig(size=size, crop="random", flip=True),
        order=OrderConfig(remainder="pad"),
        loading=LoadingConfig(num_workers=num_workers),
    )
    loader, usual = data.train_dataloader(), _usual_loader(shards, batch_size=batch_size, num_workers=num_workers)
    num_images = len(data.train_sets[0])
    seconds: dict[str, list[float]] = {}
    # Ctrl-C ends them without a word of theirs.
    quietly = (signal.SIGINT, signal.SIG_DFL)
    with ProcessPoolExecutor(
        num_workers, mp_context=worker_context(), initializer=signal.signal, initargs=quietly
    ) as pool:
        tasks = [(shards, worker, num_workers) for worker in range(num_workers)]
        # WebDataset's processes are forks of this one: they start before it has others.
        ways: dict[str, Callable[[], object]] = {
            "webdataset": lambda: _exhaust(usual),
            "decoding": lambda: list(pool.map(_decode_share, *zip(*tasks, strict=True))),
            "pillow": lambda: list(pool.map(_decode_share_with_pillow, *zip(*tasks, strict=True))),
            "loader": lambda: _exhaust(loader),
            "normalised": lambda: _exhaust(batch.images() for batch in loader),
        }
        for name, way in ways.items():  # Processes start, files get into the cache.
            way()
            seconds[name] = []
        for _ in range(rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - started)
    return Speed(
        size=size,
        num_workers=num_workers,
        **{name: num_images / min(times) for name, times in seconds.items()},
        of_decoding=_median_ratio(seconds["decoding"], seconds["loader"]),
        of_pillow=_median_ratio(seconds["pillow"], seconds["loader"]),
        of_webdataset=_median_ratio(seconds["webdataset"], seconds["normalised"]),
    )


def measure_resume(small: Path, large: Path, *, size: int, num_samples: int) -> Resume:
    """Measures a start in mid-epoch on an index that repeats `small` until it is long enough.

    Args:
        small: a set.
        large: folder of the set that repeats it; is made.
        size: side of the images in pixels.
        num_samples: at least so many are in the large set.
    """
    repeat_shards(small, large, num_samples=num_samples)
    started = time.perf_counter()
    data = _resumed(large, size=size, num_workers=0)
    next(iter(data.train_dataloader()))
    seconds = time.perf_counter() - started
    shards, opened = data.train_sets[0], _num_open(large)
    return Resume(
        num_samples=len(shards),
        first_batch_seconds=seconds,
        opened_shards=opened,
        num_shards=len(shards.manifest.shards),
        worker_private_mib=_worker_memory(large, size=size),
        worker_private_mib_small=_worker_memory(small, size=size),
        num_samples_small=len(ShardSet(small)),
    )


def _resumed(shards: Path, *, size: int, num_workers: int) -> ShardDataModule:
    """A data module in the middle of its third epoch.

    Args:
        shards: the set.
        size: side of the images in pixels.
        num_workers: processes that decode.
    """
    data = ShardDataModule(
        train=str(shards),
        batch_size=256,
        images=ImageConfig(size=size),
        order=OrderConfig(shuffle="block", block_shards=8),
        loading=LoadingConfig(num_workers=num_workers),
    )
    there = len(ShardSet(shards)) // 512 * 256
    data.load_state_dict({"samples_consumed": 2 * 2 * there + there, "epoch": 2, "samples": there})
    return data


def _worker_memory(shards: Path, *, size: int) -> float:
    """Mean private memory of two workers in MiB."""
    loader = _resumed(shards, size=size, num_workers=2).train_dataloader()
    iterator = iter(loader)
    for _, _ in zip(range(50), iterator, strict=False):
        pass
    return float(np.mean([_private_mib(pid) for pid in worker_pids(loader)]))


def _private_mib(pid: int) -> float:
    """Memory that a process has to itself, without what it has mapped of the kernel's shared memory."""
    kib, is_shared = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if not words[0].endswith(":"):  # A mapping begins: addresses, permissions (s: shared), offset, device, file.
            is_shared = words[1].endswith("s") and str(SHARED_MEMORY) in line
        elif line.startswith("Private_") and not is_shared:
            kib += int(words[1])
    return kib / 1024


def _num_open(shards: Path) -> int:
    """Shards of a set that this process has open or mapped."""
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8").split()
    return len({name for name in (*links, *mapped) if name.startswith(str(shards)) and name.endswith(".tar")})


def _decode_share(shards: Path, worker: int, num_workers: int) -> None:
    """Reads and decodes every `num_workers`th image of a set.

    Args:
        shards: the set.
        worker: number of this process, from 0.
        num_workers: processes.
    """
    opened = ShardSet(shards)
    for number in range(worker, len(opened), num_workers):
        decode_pixels(opened.read(number)[0], channels=3)


def _decode_share_with_pillow(shards: Path, worker: int, num_workers: int) -> None:
    """The same as `_decode_share` by Pillow.

    Args:
        shards: the set.
        worker: number of this process, from 0.
        num_workers: processes.
    """
    opened = ShardSet(shards)
    for number in range(worker, len(opened), num_workers):
        Image.open(io.BytesIO(opened.read(number)[0])).load()


def _usual_loader(shards: Path, *, batch_size: int, num_workers: int) -> Any:
    """WebDataset's own pipeline as its documentation shows it.

    Args:
        shards: the set.
        batch_size: images in a batch.
        num_workers: processes that decode.
    """
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    pipeline = WebDataset(urls, shardshuffle=100).shuffle(1000).decode("torchrgb").to_tuple("jpg", "cls")
    return WebLoader(pipeline.batched(batch_size), batch_size=None, num_workers=num_workers, persistent_workers=True)


def _exhaust(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def _median_ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the rounds of the ratio of two speeds, given by their times."""
    return float(np.median(np.array(slow) / np.array(fast)))


def _show(speeds: list[Speed], resume: Resume) -> None:
    screen = results()
    table = Table(title="images per second")
    rates = ("decoding", "pillow", "loader", "normalised", "webdataset")
    ratios = ("of_decoding", "of_pillow", "of_webdataset")
    for name in ("pixels", "workers", *rates, *ratios):
        table.add_column(name.replace("_", " "), justify="right")
    for each in speeds:
        values = [f"{getattr(each, name):,.0f}" for name in rates] + [f"{getattr(each, name):.2f}" for name in ratios]
        table.add_row(str(each.size), str(each.num_workers), *values)
    screen.print(table)
    screen.print(
        f"start in mid-epoch, index of {resume.num_samples:,}: first batch after {resume.first_batch_seconds:.2f} s, "
        f"{resume.opened_shards} of {resume.num_shards} shards opened; private memory of a worker "
        f"{resume.worker_private_mib:.0f} MiB ({resume.worker_private_mib_small:.0f} MiB with an index of "
        f"{resume.num_samples_small:,})"
    )
