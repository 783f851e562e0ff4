"""The benchmark on real systems: what its files say; a run with a real model where one is given."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from framework.bench import real_fault_localization as bench
from framework.bench.fault_localization import bench_fault_localization
from framework.core.errors import ConfigError
from framework.gbc.attribution.culprits.diagnosis import WEIGHTS
from framework.gbc.environments.planted_faults import Cost
from framework.gbc.environments.realworld.candidates import Verdict
from framework.gbc.environments.realworld.episodes import Failure, FaultySystem
from framework.gbc.environments.realworld.files import Result, append_result, write_episodes
from framework.gbc.environments.realworld.systems import load_systems
from framework.gbc.graph.trace import Step, Trace
from framework.gbc.graph.verbal_loss import slot_loss

FOLDER = os.environ.get("REAL_LANGUAGE_MODEL")


def step(name: str, output: str) -> Step:
    return Step(
        name=name,
        node=name,
        kind="agent",
        model="lm",
        input_text="",
        input_ids=(),
        input_spans=(),
        blocks=(),
        controls=(),
        output=output,
        output_ids=(),
        output_spans=(),
        finish="given",
    )


def features(**values: float) -> dict[str, float]:
    return {**dict.fromkeys(WEIGHTS, 0.0), **values}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two failures of one fault of the shop: the evidence is right about one, and about both together."""
    system = load_systems()["shop"]
    fault = system.faults[-1]
    failures = []
    for task in system.numbered_tasks()[:2]:
        trace = Trace(id=task["id"], task=dict(task), steps=(step("writer", "x"),), skipped=(), outputs=("writer",))
        failures.append(Failure(trace=trace, loss=slot_loss(trace), culprits=(fault.node,)))
    faulty = FaultySystem(
        name="shop-9",
        system=system,
        faults=(fault,),
        graph=fault.planted(system.graph),
        failures=tuple(failures),
        successes=(),
    )
    write_episodes(tmp_path / "episodes-shop.jsonl", [faulty])
    for number, (odds, blame) in enumerate(((1.0, 0.8), (-0.1, 0.4))):
        found = {"writer": features(log_odds=odds), "reader": features(log_odds=0.0)}
        verdict = Verdict(
            blame={"writer": blame, "reader": 1 - blame},
            cost=Cost(passes=2, tokens=100),
            is_probability=True,
            features=found,
        )
        chance = Verdict(blame={}, cost=Cost())
        for name, each in (("evidence", verdict), ("random", chance)):
            result = Result(candidate=name, faulty="shop-9", task=f"shop-{number}", verdicts={name: each})
            append_result(tmp_path / "verdicts-shop.jsonl", result)
    return tmp_path


def test_scores_are_shares_with_intervals_costs_and_calibration(folder, capsys):
    systems = load_systems()
    part = systems["shop"].part
    scores = bench.scores_of(folder, systems, 6)[part]
    alone, together, chance = (scores[name] for name in ("evidence", bench.TOGETHER, "random"))
    assert (alone.top1, alone.num_episodes, alone.by_system) == (0.5, 2, {"shop": 0.5})
    # Sure of 0.8 and right, sure of 0.6 and wrong.
    assert alone.calibration_error == pytest.approx((0.2 + 0.6) / 2)
    assert alone.cost.tokens == 100
    assert together.top1 == 1.0
    assert chance.top1 == pytest.approx(1 / 4)
    assert chance.calibration_error is None
    assert alone.low <= alone.top1 <= alone.high
    assert bench.scores_of(folder, systems, 1)[part]["evidence"].top1 == 1.0
    bench.show({part: scores})
    assert "evidence, all failures" in capsys.readouterr().out


def test_weights_are_of_the_choosing_systems_alone(folder):
    systems = load_systems()
    known = bench.weights_of(folder, {"shop": replace(systems["shop"], part="choosing")})
    assert known["log_odds"] > 0
    assert bench.weights_of(folder, {"shop": replace(systems["shop"], part="held_out")}) == {}


def test_what_cannot_be_measured(tmp_path: Path):
    with pytest.raises(ConfigError, match="give --model and --folder"):
        bench_fault_localization(world="real")
    for options, problem in (
        ({"systems": ("nowhere",)}, "system 'nowhere'"),
        ({"candidates": ("x",)}, "candidate 'x'"),
    ):
        with pytest.raises(ConfigError, match=problem):
            bench_fault_localization(world="real", model=tmp_path, folder=tmp_path, **options)


@pytest.mark.slow
@pytest.mark.skipif(FOLDER is None, reason="no REAL_LANGUAGE_MODEL, the folder of SmolLM2-135M-Instruct")
def test_a_real_model_solves_a_system_and_a_fault_is_found(tmp_path: Path):
    assert FOLDER is not None
    record = bench_fault_localization(
        tmp_path / "record.json",
        world="real",
        model=Path(FOLDER),
        folder=tmp_path,
        systems=("shop",),
        candidates=("evidence", "leave_one_out", "mended"),
        most_failures=1,
    )
    scores = record["scores"]["choosing"]
    assert scores["each node mended (upper bound)"]["top1"] > 0.9
    assert scores["evidence"]["top1"] > scores["leave-one-out"]["top1"]
