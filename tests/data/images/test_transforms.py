"""From bytes to pixels: shapes, ranges, modes, and random choices that are repeatable."""

import io
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from framework.core.errors import DataError
from framework.data.images.options import ReadOptions
from framework.data.images.transforms import ImageConfig, ImageTransform, SampleRandom, first_randoms


def encode(image: Image.Image, suffix: str = "png") -> bytes:
    stream = io.BytesIO()
    image.save(stream, suffix)
    return stream.getvalue()


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def test_pixels_of_the_right_size_are_kept():
    image = picture(6, 6)
    tensor = ImageTransform(size=6)(encode(image))
    assert tensor.dtype == torch.float32
    assert torch.equal(((tensor + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0), torch.tensor(np.array(image)))


def test_range_is_minus_one_to_one():
    image = Image.fromarray(np.array([[0, 255]] * 2, dtype=np.uint8))
    assert ImageTransform(size=2, channels=1)(encode(image)).tolist() == [[[-1.0, 1.0], [-1.0, 1.0]]]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("width", "height"), [(8, 8), (9, 8), (40, 17), (16, 33), (3, 5), (1, 1), (200, 8)])
def test_any_size_becomes_the_square(width: int, height: int, channels):
    tensor = ImageTransform(size=8, channels=channels)(encode(picture(width, height)))
    assert tensor.shape == (channels, 8, 8)
    assert tensor.abs().max() <= 1


def test_halving_is_a_mean_of_boxes():
    image = picture(8, 8, "L")
    tensor = ImageTransform(size=2, channels=1)(encode(image))
    expected = np.array(image, dtype=float).reshape(2, 4, 2, 4).mean((1, 3)) / 127.5 - 1
    assert np.abs(tensor[0].numpy() - expected).max() <= 1.5 / 127.5  # Each of the two halvings rounds.


def test_centre_crop_is_in_the_middle():
    image = picture(10, 6)
    expected = ImageTransform(size=6)(encode(image.crop((2, 0, 8, 6))))
    assert torch.equal(ImageTransform(size=6)(encode(image)), expected)


@pytest.mark.parametrize(("width", "height"), [(30_000, 1), (1, 30_000), (8000, 3), (9000, 20)])
@pytest.mark.parametrize("crop", ["center", "random"])
def test_a_thin_image_takes_little_memory(width: int, height: int, crop):
    data = encode(picture(width, height, "L"))
    tracemalloc.start()
    tensor = ImageTransform(size=256, channels=1, crop=crop)(data, SampleRandom(0))
    # The file, the pixels of 60 KB or 180 KB, the square in bytes and as float32; Pillow's own are not seen.
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()
    assert tensor.shape == (1, 256, 256)


@pytest.mark.parametrize("sideways", [False, True])
def test_a_thin_image_is_cropped_before_it_is_enlarged(sideways: bool):
    pixels = np.repeat(np.arange(100, dtype=np.uint8) * 2, 2)[None]  # 200x1
    data = encode(Image.fromarray(pixels.T if sideways else pixels))
    square = ImageTransform(size=4, channels=1)(data)
    # The pixel in the middle, number 100 of 200 (the square begins at 398 of 800), is 100.
    assert ((square + 1) * 127.5).unique().round().tolist() == [100]
    seen = {
        float(ImageTransform(size=4, channels=1, crop="random")(data, SampleRandom(n))[0, 0, 0]) for n in range(300)
    }
    assert len(seen) > 80
    assert min(seen) < -0.9
    assert max(seen) > 0.45


def test_long_images_are_cropped_in_the_same_place_on_both_ways():
    ramp = np.tile(np.linspace(0, 255, 72 * 8).astype(np.uint8), (72, 1))
    whole, cropped = (
        ImageTransform(size=36, channels=1)(encode(Image.fromarray(ramp[:, 576 - width :]))) for width in (576, 560)
    )
    below = ImageTransform(size=36, channels=1)(encode(Image.fromarray(np.hstack([ramp, ramp[:, -1:]]))))
    # One pixel more than eight times as long as wide: half a pixel further to the right, and no other picture.
    assert (whole - below).abs().max() < 0.01
    assert (whole - cropped).abs().max() < 0.05


def test_orientation_of_the_file_is_applied_or_ignored():
    exif = Image.Exif()
    exif[0x0112] = 8
    stream = io.BytesIO()
    image = picture(6, 6)
    image.save(stream, "png", exif=exif)
    data = stream.getvalue()
    ignore = ReadOptions(orientation="ignore")
    assert torch.equal(ImageTransform(size=6, read=ignore)(data), ImageTransform(size=6)(encode(image)))
    turned = ImageTransform(size=6)(encode(image.transpose(Image.Transpose.ROTATE_90)))
    assert torch.equal(ImageTransform(size=6)(data), turned)
    assert ImageConfig(size=6, read=ignore).training_transform().read == ignore


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_mode_is_close_to_its_gray(mode: str):
    gray = np.tile(np.arange(0, 256, 16, dtype=np.uint8), (16, 1))
    image = Image.fromarray(gray)
    if mode == "1":
        image = image.point(lambda value: 255 * (value >= 128))
        gray = np.array(image)
    image = Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    tensor = ImageTransform(size=16, channels=3)(encode(image))
    assert np.abs(tensor.numpy() - (gray / 127.5 - 1)).max() < 1e-6


def test_cmyk():
    tensor = ImageTransform(size=4)(encode(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "jpeg"))
    assert torch.allclose(tensor.mean((1, 2)), torch.tensor([1.0, -1.0, -1.0]), atol=0.05)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparent_pixels_are_white(mode: str):
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    tensor = ImageTransform(size=4)(encode(image if mode == "RGBA" else image.quantize(4)))
    assert torch.equal(tensor, torch.ones(3, 4, 4))


def test_random_choices_depend_on_seed_epoch_and_number_alone():
    transform = ImageTransform(size=8, crop="random", flip=True)
    data = encode(picture(800, 8))
    results = {key: transform(data, SampleRandom(*key)) for key in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]}
    for key, result in results.items():
        assert torch.equal(result, transform(data, SampleRandom(*key)))
    assert len({tuple(result.flatten().tolist()) for result in results.values()}) == 4


def test_random_crops_and_flips_cover_everything():
    image = picture(6, 4)
    transform = ImageTransform(size=4, crop="random", flip=True)
    seen = {tuple(transform(encode(image), SampleRandom(0, 0, number)).flatten().tolist()) for number in range(100)}
    expected = set()
    for left in range(3):
        crop = ImageTransform(size=4)(encode(image.crop((left, 0, left + 4, 4))))
        expected |= {tuple(crop.flatten().tolist()), tuple(crop.flip(2).flatten().tolist())}
    assert seen == expected


@pytest.mark.parametrize("data", [b"", b"no image", encode(picture(64, 64), "jpeg")[:900]])
def test_undecodable_bytes_name_the_sample(data: bytes):
    with pytest.raises(DataError, match=r"sample 7 cannot be decoded \(.+\)"):
        ImageTransform(size=8)(data, name="sample 7")


def test_random_numbers_are_splitmix64():
    # From state 0, Vigna's splitmix64.c gives these.
    assert [SampleRandom()._next() for _ in range(1)] == [0xE220A8397B1DCDAF]
    random = SampleRandom()
    assert [random._next() for _ in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_random_numbers_are_uniform_over_samples():
    draws = np.array([SampleRandom(3, 1, number).random() for number in range(4000)])
    assert np.abs(np.histogram(draws, bins=8, range=(0, 1))[0] - 500).max() < 90
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.06
    numbers = [SampleRandom(3, 1, number).integers(5) for number in range(4000)]
    assert np.abs(np.bincount(numbers, minlength=5) - 800).max() < 120


def test_the_first_random_numbers_of_a_batch_are_those_of_each_sample():
    rng = np.random.default_rng(0)
    passes, numbers = rng.integers(0, 2**40, (2, 50))
    for seed in (0, 7, 2**63, 2**64 + 3):
        alone = [SampleRandom(seed, *key).random() for key in zip(passes.tolist(), numbers.tolist(), strict=True)]
        assert first_randoms(seed, passes, numbers).tolist() == alone
        flipping = ImageTransform(size=4, flip=True)
        assert flipping.mirrored(seed, passes, numbers).tolist() == [value < 0.5 for value in alone]
    assert not ImageTransform(size=4).mirrored(0, passes, numbers).any()
