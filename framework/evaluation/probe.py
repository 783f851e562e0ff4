"""What frozen features know of classes: a linear probe and nearest neighbours, each with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from framework.core.console import tracked, working
from framework.core.errors import ConfigError, DataError
from framework.core.shapes import Labels

Solver = Literal["lbfgs", "sgd"]
CONFIDENCE = 0.95
STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse strengths of the penalty that `lbfgs` chooses from."""
HELD_OUT = 5
"""One of so many training samples chooses the penalty."""
_LEAST_HELD_OUT = 100


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How a probe is trained.

    Args:
        solver: `lbfgs`, logistic regression to its optimum with a penalty that a fifth of the training samples chooses
            (scikit-learn); `sgd`, stochastic gradient descent with momentum 0.9, a cosine schedule and no weight decay,
            as is usual on ImageNet (He et al. 2022, MAE, appendix A.2), for more samples than `lbfgs` can take.
        epochs: of `sgd`.
        batch_size: samples of a step of `sgd`.
        learning_rate: of `sgd`, for 256 samples; it grows with the batch size.
        neighbours: that vote, weighed by exp(cosine similarity / 0.07) (Wu et al. 2018, section 3.4); 0 for no vote.
        seed: of the order of the samples in `sgd`.
    """

    solver: Solver = "lbfgs"
    epochs: int = 90
    batch_size: int = 1024
    learning_rate: float = 0.1
    neighbours: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.solver not in get_args(Solver):
            raise ConfigError(f"solver {self.solver!r}", hint="use lbfgs or sgd")
        if self.epochs < 1 or self.batch_size < 1:
            raise ConfigError(f"epochs {self.epochs}, batch_size {self.batch_size}", hint="use 1 or more of each")
        if not 0 < self.learning_rate < float("inf"):
            raise ConfigError(f"learning_rate {self.learning_rate}", hint="use a number above 0")
        if self.neighbours < 0:
            raise ConfigError(f"neighbours {self.neighbours}", hint="use 0 (none) or more")


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """Features of labelled samples.

    Attributes:
        features: one row a sample.
        labels: their classes, from 0.
    """

    features: Float[Tensor, "sample feature"]
    labels: Int64[Tensor, "sample"]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A share of samples named rightly, with Wilson's interval of `CONFIDENCE` for the choice of the samples.

    Attributes:
        value: the share.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, right: Sequence[bool] | np.ndarray) -> "Accuracy":
        """Of samples, which were named rightly and which not."""
        from scipy.stats import binomtest

        count, total = int(np.sum(right)), len(right)
        interval = cast(Any, binomtest(count, total)).proportion_ci(CONFIDENCE, method="wilson")
        return cls(value=count / total, low=float(interval.low), high=float(interval.high))

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """How well classes can be told from features.

    Attributes:
        linear: accuracy of the linear probe on the test samples.
        neighbours: accuracy of the nearest training samples' vote; None where there is none.
        penalty: inverse strength of the penalty that `lbfgs` chose; None for `sgd`.
    """

    linear: Accuracy
    neighbours: Accuracy | None
    penalty: float | None


def probe_features(training: FeatureSet, test: FeatureSet, config: ProbeConfig = ProbeConfig()) -> ProbeResult:
    """Train a linear classifier on frozen features, and measure it on others (Alain and Bengio 2016).

    Features are standardised by the training samples' mean and deviation first.

    Args:
        training: what it is trained on, and the neighbours.
        test: what it is measured on.
        config: how it is trained.

    Raises:
        ConfigError: scikit-learn is not installed.
        DataError: fewer than two classes, or features that are not finite.
    """
    _check(training, test)
    mean, deviation = training.features.mean(0), training.features.std(0).clamp(min=1e-6)
    known, asked = (FeatureSet(features=(s.features - mean) / deviation, labels=s.labels) for s in (training, test))
    if config.solver == "lbfgs":
        said, penalty = _by_lbfgs(known, asked)
    else:
        said, penalty = _by_sgd(known, asked, config), None
    truth = asked.labels.numpy()
    voted = _vote(known, asked, config.neighbours) if config.neighbours else None
    return ProbeResult(
        linear=Accuracy.of(said == truth),
        neighbours=None if voted is None else Accuracy.of(voted == truth),
        penalty=penalty,
    )


def _check(training: FeatureSet, test: FeatureSet) -> None:
    if len(training.labels.unique()) < 2 or len(test.labels) < 1:
        raise DataError("a probe needs two classes", hint="give labelled images of two classes or more, and of a test")
    for features in (training.features, test.features):
        if not features.isfinite().all():
            raise DataError(
                "features hold numbers that are not finite", hint="is the checkpoint of a run that diverged?"
            )


def _by_lbfgs(training: FeatureSet, test: FeatureSet) -> tuple[np.ndarray, float]:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ConfigError("the solver lbfgs needs scikit-learn", hint="pip install 'framework[digits]'") from error

    features, labels = training.features.numpy(), training.labels.numpy()
    # Sets may be sorted by class: every fifth sample is a fair share of each.
    held_out = np.arange(len(labels)) % HELD_OUT == 0

    def fitted(strength: float, chosen: np.ndarray) -> Any:
        return LogisticRegression(C=strength, max_iter=1000).fit(features[chosen], labels[chosen])

    strengths = STRENGTHS if held_out.sum() >= _LEAST_HELD_OUT and len(set(labels[~held_out])) > 1 else (1.0,)
    with working(f"a linear probe on {len(labels):,} samples"):
        scores = {
            strength: fitted(strength, ~held_out).score(features[held_out], labels[held_out])
            for strength in strengths
            if len(strengths) > 1
        }
        # Of equal ones the strongest penalty.
        best = max(strengths, key=lambda strength: (scores.get(strength, 0.0), -strength))
        everything = np.ones(len(labels), bool)
        return fitted(best, everything).predict(test.features.numpy()), best


def _by_sgd(training: FeatureSet, test: FeatureSet, config: ProbeConfig) -> np.ndarray:
    generator = torch.Generator().manual_seed(config.seed)
    num_classes, total = int(training.labels.max()) + 1, len(training.labels)
    layer = nn.Linear(training.features.shape[1], num_classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    rate = config.learning_rate * config.batch_size / 256
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
    for _ in tracked(range(config.epochs), "epochs of the probe"):
        order = torch.randperm(total, generator=generator)
        for rows in order.split(config.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(layer(training.features[rows]), training.labels[rows]).backward()  # pyright: ignore[reportUnknownMemberType]
            optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        schedule.step()
    with torch.no_grad():
        return layer(test.features).argmax(1).numpy()


def _vote(training: FeatureSet, test: FeatureSet, neighbours: int) -> np.ndarray:
    known, num_classes = F.normalize(training.features), int(training.labels.max()) + 1
    said: list[Labels] = []
    for rows in F.normalize(test.features).split(1024):
        nearest = (rows @ known.T).topk(min(neighbours, len(known)))
        votes = rows.new_zeros(len(rows), num_classes)
        votes.scatter_add_(1, training.labels[nearest.indices], (nearest.values / 0.07).exp())
        said.append(votes.argmax(1))
    return torch.cat(said).numpy()


def curve_over_depth(path: str, rows: Mapping[str, Sequence[tuple[int, Accuracy]]], baseline: Accuracy | None) -> None:
    """Draw accuracy over depth, a line with its interval for each row, as a PNG or SVG.

    Args:
        path: of the picture; its ending says the format.
        rows: (depth, accuracy) of each line, by its name.
        baseline: of raw pixels: a horizontal line; None for none.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, points in rows.items():
        depths, values = [depth for depth, _ in points], [100 * accuracy.value for _, accuracy in points]
        axes.plot(depths, values, marker=".", label=name)
        axes.fill_between(
            depths, [100 * accuracy.low for _, accuracy in points], [100 * a.high for _, a in points], alpha=0.2
        )
    if baseline is not None:
        axes.axhline(100 * baseline.value, linestyle="--", color="gray", label="raw pixels")
    axes.set_xlabel("depth (0: the input's projection)")
    axes.set_ylabel("accuracy, %")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
