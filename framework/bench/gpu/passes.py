"""Attribution and episodes on language models of real shapes with random weights, and the peaks of `finegrained`."""

from functools import partial

from transformers import PreTrainedModel

from framework.bench.attribution import measure_pass
from framework.bench.episodes import measure_episodes
from framework.bench.gpu.session import Session
from framework.bench.language_models import Case, Shape, build_model
from framework.gbc.attribution.options import GradientOptions
from framework.gbc.attribution.token_gradients import token_scores

ANSWERS = (1, 4, 21)
"""Attributed together by `finegrained`; the last ones are the rows that its default chunk once took."""


def _shapes(session: Session) -> tuple[Shape, ...]:
    return ("small",) if session.rehearse else ("qwen3-0.6b", "qwen3-4b")


def _case(session: Session, shape: Shape, new: int) -> Case:
    lengths = {"prompt": 8, "read": 8} if session.rehearse else {"prompt": 512, "read": 256}
    return Case(shape=shape, device=str(session.device), new=new, scalar="sum_squares", **lengths)


def measure_passes(session: Session) -> None:
    """One pass against the kept graph, and what attribution adds to generation, of each model at two lengths."""
    models: dict[Shape, PreTrainedModel] = {
        shape: build_model(shape, str(session.device)) for shape in _shapes(session)
    }
    # The host needs some 25 ms for a token, and as much for its part of a kept graph's way back.
    for new, least in ((2, 0.0), (4, 0.0)) if session.rehearse else ((64, 10.0), (256, 30.0)):
        for shape, model in models.items():
            case = _case(session, shape, new)
            measure = partial(_pass, session, model, case)
            session.attempt(f"{shape}, {new} new tokens: pass", measure, least_seconds=least)
            measure = partial(_episodes, session, model, case)
            session.attempt(f"{shape}, {new} new tokens: episodes", measure, least_seconds=least / 2)


def _pass(session: Session, model: PreTrainedModel, case: Case) -> dict[str, object]:
    batch_size = 2 if session.rehearse else 16
    ways = ("one_pass", "kept")
    found = measure_pass(model, case, batch_size=batch_size, rounds=1, ways=ways, processes=False, warm_up=0)
    return {
        "seconds": found.seconds["one_pass"],
        "times_faster_than_kept_graph": found.faster,
        "in_a_batch": found.faster_in_batch,
        "mib": found.peak_mib.get("one_pass"),
        "memory_of_kept": found.memory,
        "difference": found.difference,
    }


def _episodes(session: Session, model: PreTrainedModel, case: Case) -> dict[str, object]:
    found = measure_episodes(model, case, batch_size=2 if session.rehearse else 16, rounds=1)
    return {
        "tokens_per_second": found.tokens_per_second,
        "generation_s": found.generation_seconds,
        "attribution_s": found.attribution_seconds,
        "added": found.added,
    }


def measure_finegrained(session: Session) -> None:
    """A gradient for every output token: the peak above the model, for one answer and for several at once."""
    for shape in _shapes(session):
        model = build_model(shape, str(session.device))
        for count in ANSWERS:
            measure = partial(_finegrained, session, model, _case(session, shape, 2 if session.rehearse else 64), count)
            session.attempt(f"{shape}, {count} answers", measure, least_seconds=5)
        del model
        session.free()


def _finegrained(session: Session, model: PreTrainedModel, case: Case, count: int) -> dict[str, object]:
    rows = [case.row(number) for number in range(count)]
    started = session.now()
    scores = token_scores(model, rows, GradientOptions(scalar="finegrained"))
    return {
        "output_tokens": case.new,
        "seconds": session.now() - started,
        "peak_gib_with_model": session.peak_gib(),
        "finite": all(bool(each.l1.isfinite().all()) for each in scores),
    }
