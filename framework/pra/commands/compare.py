"""The method against the rows it is compared with: one recipe, every row, at equal parameters and steps."""

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast, get_args

import torch

from framework.core.console import console
from framework.core.devices import pick_device
from framework.core.errors import ConfigError, DataError
from framework.core.io import check_output_folder, locked_file, sha256_of
from framework.core.text_files import read_yaml
from framework.evaluation.features import FeatureNetwork
from framework.pra.commands.comparison.figure import FIGURE, draw_comparison, draw_curves
from framework.pra.commands.comparison.judge import Judge, keep_floor, read_floor
from framework.pra.commands.comparison.measurement import measure_part
from framework.pra.commands.comparison.options import with_options
from framework.pra.commands.comparison.parts import Part, at_size, plan_parts
from framework.pra.commands.comparison.protocol import Protocol, differences
from framework.pra.commands.comparison.results import TABLE, by_training_steps, read_result, write_all, write_result
from framework.pra.commands.comparison.training import (
    check_begun,
    check_kept,
    results_folder,
    train_classifier,
    train_part,
)
from framework.pra.commands.sample_parts import weights_digest
from framework.pra.network.config import PRAConfig, VariantName
from framework.pra.sampling import check_classes

_FLOOR = "training-images-{}px.json"
_LOCK = "{}.lock"
_SECONDS_BETWEEN_LOOKS = 1.0


def compare(
    recipe: str,
    out: str,
    *,
    features: FeatureNetwork | None = None,
    classifier: str | None = None,
    variants: list[VariantName] | None = None,
    sizes: list[int] | None = None,
    seeds: list[int] = [0],  # noqa: B006 - never changed
    parts: list[str] = ["*"],  # noqa: B006
    guidance: list[float] = [1.0, 1.5],  # noqa: B006
    num: int = 5000,
    steps: int = 50,
    training_steps: list[int] = [],  # noqa: B006
    svm_accuracy: bool = False,
    device: str = "auto",
    options: list[str] = [],  # noqa: B006
) -> None:
    """Train every row of a recipe at equal parameters and steps, and measure its rollouts.

    With several sizes the patches grow with the images. A part is a row at a size with a seed: what is measured stays,
    what was cut off goes on, and the same command started several times, also on several machines, shares them out.

    Args:
        recipe: the recipe of a PRA run.
        out: folder that gets a run for each part, `results.jsonl`, `table.md`, and figures (`comparison`, `curves`).
        features: network of the Fréchet distance at every size, as for `framework evaluate`.
        classifier: instead of `features`: the recipe of a classifier, which is trained at each size first.
        variants: rows of the table; all by default.
        sizes: sides of the images in pixels; that of the recipe by default.
        seeds: of training and sampling, a part each.
        parts: names of the parts to work on, or patterns such as `pra-*` and `*-32px-seed1`.
        guidance: guidance scales to sample at; 1, which is none, is always measured.
        num: samples of each part and scale.
        steps: steps of the sampler.
        training_steps: after which to measure, such as [1000, 2000], in place of the recipe's last; more of them go on.
        svm_accuracy: also measure how often a support vector machine predicts the samples' class; for small images.
        device: where samples are made, such as cpu or cuda; auto takes a GPU if there is one.
        options: of `framework fit`, for all parts, such as `--options '[--trainer.max_steps, "2000"]'`.
    """
    settings, base = _read(recipe, options)
    protocol = Protocol(
        recipe=recipe,
        recipe_sha256=sha256_of(Path(recipe)),
        options=tuple(options),
        features=_judge_name(features, classifier),
        guidance=tuple(guidance),
        num=num,
        steps=steps,
        svm_accuracy=svm_accuracy,
        training_steps=tuple(training_steps),
        classifier_sha256=None if classifier is None else _digest(classifier),
        weights_sha256=None if features is None else weights_digest(features),
        recipe_steps=_last_step(settings),
    )
    _check(protocol, base, settings)
    rows, sides = variants or get_args(VariantName), sizes or [base.image_size]
    chosen = _named(plan_parts(base, variants=rows, sizes=sides, seeds=seeds), parts)
    judges = _Judges(Path(out), base, settings["data"], num, features=features, classifier=classifier)
    _work(chosen, Path(out), protocol, judges, pick_device(device))


def _check(protocol: Protocol, base: PRAConfig, settings: dict[str, Any]) -> None:
    """What can be known before hours of training.

    Args:
        protocol: how parts are trained and measured.
        base: the recipe's architecture.
        settings: of the recipe.

    Raises:
        ConfigError: it cannot be sampled so, or what it is on its way is not what a shorter training would have made.
    """
    for sampler in protocol.samplers:
        check_classes((), base.num_classes, sampler)
    schedule = _group(settings, "model", "init_args", "optimizer").get("schedule", "constant")
    if protocol.training_steps and schedule != "constant":
        problem = f"training_steps {list(protocol.training_steps)} with the schedule {schedule} of {protocol.recipe}"
        raise ConfigError(problem, hint="set model.init_args.optimizer.schedule to constant there")


def _judge_name(features: FeatureNetwork | None, classifier: str | None) -> str:
    """What distances are measured in, in words."""
    if (features is None) == (classifier is None):
        raise ConfigError("features and classifier", hint="give one of them: a network, or a classifier's recipe")
    return str(classifier) if features is None else features.name


def _work(parts: Sequence[Part], out: Path, protocol: Protocol, judges: "_Judges", device: torch.device) -> None:
    """Trains and measures parts, one after the other, but for those that others work on.

    Args:
        parts: in their order.
        out: folder of the comparison.
        protocol: how.
        judges: what measures them.
        device: where samples are made.
    """
    check_output_folder(out)
    busy: list[str] = []
    for part in parts:
        folder = out / part.name
        with ExitStack() as held:
            if not _is_free(out / _LOCK.format(part.name), held):
                busy.append(part.name)
                continue
            folder.mkdir(exist_ok=True)
            check_begun(folder, protocol.training)
            missing = [at for at in protocol.moments if not _is_measured(results_folder(folder, at), protocol)]
            if not missing:
                continue
            for at in missing:
                check_kept(folder, at, protocol)
            console.print(f"{part.name}: training, then samples and measures")
            train_part(part, folder, protocol)
            for at in missing:
                result = measure_part(part, folder, judges.of_size(part.architecture.image_size), protocol, device, at)
                write_result(results_folder(folder, at), result)
        _write(out, protocol)
    _write(out, protocol)
    if busy:
        console.print(f"worked on by other processes: {', '.join(busy)}")
    console.print(f"table in {out}/{TABLE}, figure in {out}/{FIGURE}.svg")


def _named(parts: Sequence[Part], patterns: Sequence[str]) -> list[Part]:
    for pattern in patterns:
        if not any(fnmatch(part.name, pattern) for part in parts):
            names = ", ".join(part.name for part in parts)
            raise ConfigError(f"no part is named {pattern}", hint=f"there are {names}")
    return [part for part in parts if any(fnmatch(part.name, pattern) for pattern in patterns)]


def _is_free(lock: Path, held: ExitStack) -> bool:
    """Whether nobody else holds a lock, which is kept from others then until `held` ends."""
    try:
        held.enter_context(locked_file(lock))
    except DataError:
        return False
    return True


@contextmanager
def _alone(lock: Path) -> Generator[None, None, None]:
    """Waits until nobody else holds a lock, and holds it."""
    with ExitStack() as held:
        if not _is_free(lock, held):
            console.print(f"waiting for another process, which holds {lock}")
            while not _is_free(lock, held):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        yield


def _is_measured(folder: Path, protocol: Protocol) -> bool:
    """Whether a part has the result that is asked for."""
    result = read_result(folder)
    return result is not None and not differences(result.settings, protocol.settings)


def _write(out: Path, protocol: Protocol) -> None:
    """Table, lines and figure of all parts in the folder that were measured alike."""
    with _alone(out / _LOCK.format("table")):
        folders = [path for path in out.iterdir() if path.is_dir()]
        found = [read_result(results_folder(folder, at)) for folder in folders for at in protocol.moments]
        results = [each for each in found if each is not None and not differences(each.settings, protocol.settings)]
        if not results:
            return
        order = list(get_args(VariantName))
        results.sort(key=lambda each: (order.index(each.variant), each.image_size, each.seed, each.training_steps or 0))
        sizes = {each.image_size for each in results}
        read = {at: read_floor(out / _FLOOR.format(at), protocol.num, protocol.weights_sha256) for at in sizes}
        floors = {size: floor for size, floor in read.items() if floor is not None}
        write_all(out, results, floors)
        equally_long = by_training_steps(results)
        draw_comparison(out, equally_long[max(equally_long)], floors)
        if len(equally_long) > 1:
            draw_curves(out, results)


class _Judges:
    """What measures the parts of each size, made when the first of them asks.

    Args:
        out: folder of the comparison.
        base: the recipe's architecture.
        data: the recipe's.
        num: samples of a part.
        features: network for all sizes.
        classifier: recipe of a network for each size.
    """

    def __init__(
        self,
        out: Path,
        base: PRAConfig,
        data: dict[str, Any],
        num: int,
        *,
        features: FeatureNetwork | None,
        classifier: str | None,
    ) -> None:
        self._out, self._base, self._data, self._num = out, base, data, num
        self._features, self._classifier = features, classifier
        self._made: dict[int, Judge] = {}

    def of_size(self, image_size: int) -> Judge:
        """Of a size."""
        if image_size not in self._made:
            config = at_size(self._base, image_size)
            with _alone(self._out / _LOCK.format(f"judge-{image_size}px")):
                network = self._features or self._trained(image_size)
                judge = Judge.of_shards(network, self._data["train"], self._data["validation"], config)
                keep_floor(self._out / _FLOOR.format(image_size), judge, self._num)
            self._made[image_size] = judge
        return self._made[image_size]

    def _trained(self, image_size: int) -> FeatureNetwork:
        assert self._classifier is not None
        return train_classifier(self._classifier, self._out / f"classifier-{image_size}px", image_size)


def _read(path: str, options: Sequence[str]) -> tuple[dict[str, Any], PRAConfig]:
    """A recipe's settings, with those of options in their place, and its architecture."""
    settings = read_yaml(path)
    architecture, data = _group(settings, "model", "init_args", "architecture"), _group(settings, "data")
    if not architecture or not {"train", "validation"} <= data.keys():
        problem = f"{path} is not the recipe of a PRA run with validation data"
        raise ConfigError(problem, hint="give one such as recipes/pra/digits.yaml")
    settings = with_options(settings, options)
    return settings, _architecture(path, settings)


def _group(settings: object, *names: str) -> dict[str, Any]:
    """A group of settings within others; empty where it is not there."""
    for name in names:
        settings = cast("dict[str, object]", settings).get(name) if isinstance(settings, dict) else None
    return cast("dict[str, Any]", settings) if isinstance(settings, dict) else {}


def _last_step(settings: dict[str, Any]) -> int | None:
    """After which a recipe's training ends, where steps are what ends it."""
    trainer = _group(settings, "trainer")
    steps = trainer.get("max_steps")
    return steps if isinstance(steps, int) and steps > 0 and trainer.get("max_epochs", -1) in (None, -1) else None


def _architecture(path: str, settings: dict[str, Any]) -> PRAConfig:
    try:
        return PRAConfig(**settings["model"]["init_args"]["architecture"])
    except TypeError as error:
        problem = f"model.architecture of {path} is none ({error})"
        raise ConfigError(problem, hint="check its names, as `framework fit` does") from error


def _digest(path: str) -> str:
    try:
        return sha256_of(Path(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})", hint="give a classifier's recipe") from error
