"""What a training step is measured by, over all processes."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from framework.gbc.attribution.results import AgentCredit, mean_credits
from framework.gbc.prompt_search.search import PromptSearch
from framework.gbc.training.failure_limit import Failures
from framework.gbc.training.prompt_steps import AttributedError
from framework.gbc.training.rollouts import EpisodeResult, failed_share, mean_loss, success_share
from framework.gbc.training.worker import RankResult


def episode_metrics(results: Sequence[EpisodeResult], failures: Failures) -> dict[str, float]:
    """Metrics of the runs of a batch, and of all that failed so far."""
    return {
        "loss/verbal": mean_loss(results),
        "success/train": success_share(results),
        "failures/count": float(failures.failed),
        "failures/share": failures.share,
    }


def on_host(metrics: Mapping[str, float]) -> dict[str, Float[Tensor, ""]]:
    """Metrics as Lightning's logs take them without a copy to the device, which would be waited for, of each."""
    return {name: torch.tensor(float(value), device="cpu") for name, value in metrics.items()}


def validation_metrics(results: Sequence[EpisodeResult]) -> dict[str, float]:
    """Metrics of the runs of a validation batch; its loss is of those that did not fail."""
    return {
        "validation/loss": mean_loss(results),
        "validation/success": success_share(results),
        "validation/failed_share": failed_share(results),
    }


def gradient_metrics(ranks: Sequence[RankResult], *, num_tasks: int) -> dict[str, float]:
    """What the straight-through loss of a batch is of: shares in [0, 1]."""
    return {
        "soft/flowing_share": sum(rank.connected_share for rank in ranks) / len(ranks),
        "soft/trained_share": sum(rank.num_traces for rank in ranks) / num_tasks,
    }


def credit_metrics(errors: Sequence[AttributedError], nodes: Iterable[str]) -> dict[str, float]:
    """Mean credits of every node over the errors of a batch.

    Without errors they are 0: a metric that is left out would keep its value.
    """
    none = [AgentCredit(name=name, through=0.0, own=0.0, walk=0.0) for name in nodes]
    found = mean_credits([each.credits for each in errors], [each.loss for each in errors])
    return {
        f"credit_{kind}_by_agent/{credit.name}": getattr(credit, kind)
        for credit in [*none, *found]
        for kind in ("own", "through", "walk")
    }


def search_metrics(search: PromptSearch) -> dict[str, float]:
    """Metrics of a search, besides its held-out loss."""
    return {
        "search/trials": float(0 if search.state is None else len(search.state.trials)),
        "search/failed_proposals": float(search.num_failed_proposals),
    }
