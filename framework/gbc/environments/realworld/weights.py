"""The weights of the evidence, fitted to episodes with known culprits: a conditional logit (McFadden 1974)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from framework.gbc.attribution.culprits.diagnosis import WEIGHTS

_SHRINKAGE = 0.0003
"""Of 0.0001 to 0.01 the likeliest, each choosing system left out in turn."""
_STEPS = 200


@dataclass(frozen=True, kw_only=True)
class Known:
    """A failed run whose culprits are known.

    Attributes:
        group: its fault and system: runs of one group count as one.
        features: of each node that ran.
        culprits: of the run.
    """

    group: str
    features: Mapping[str, Mapping[str, float]]
    culprits: tuple[str, ...]


def fit_weights(known: Sequence[Known], *, shrinkage: float = _SHRINKAGE) -> dict[str, float]:
    """The weights under which the culprits are likeliest, shrunk towards 0.

    Args:
        known: runs; those whose culprits did not run are passed over.
        shrinkage: of the sum of the weights' squares, against the mean log-likelihood in nats.
    """
    names = tuple(WEIGHTS)
    rows: list[tuple[torch.Tensor, torch.Tensor, float]] = []
    counts = Counter(run.group for run in known)
    for run in known:
        found = torch.tensor(
            [[features[name] for name in names] for features in run.features.values()], dtype=torch.float64
        )
        right = torch.tensor([node in run.culprits for node in run.features])
        if right.any():
            rows.append((found, right, 1 / counts[run.group]))
    weights = torch.zeros(len(names), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")
    total = sum(share for *_, share in rows)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = shrinkage * weights.square().sum()
        for found, right, share in rows:
            scores = found @ weights
            value = value - share / total * (scores[right].logsumexp(0) - scores.logsumexp(0))
        value.backward()  # pyright: ignore[reportUnknownMemberType]
        return value

    optimizer.step(loss)  # pyright: ignore[reportUnknownMemberType]
    return dict(zip(names, (float(value) for value in weights.detach()), strict=True))
