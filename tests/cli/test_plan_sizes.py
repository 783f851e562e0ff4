"""The largest model within some hours: on a device whose speed is known, and what cannot be found."""

from dataclasses import replace
from typing import Any

import pytest

from framework.cli.main import main
from framework.cli.plan_sizes import SizedPlan, as_options, largest_within
from framework.core.errors import ConfigError
from framework.core.method import Method
from framework.tracking.devices import Device
from framework.training.planning import Memory, Plan, PlannedRun
from framework.training.scale import ClusterConfig
from framework.training.strategies.config import StrategyConfig

HERE = "tests.cli.test_plan_sizes"
METHOD = Method(name="toy", description="", plan=f"{HERE}:plan", sizes=f"{HERE}:sizes")
RUN = PlannedRun(strategy=StrategyConfig(), num_devices=1, micro_batch=1)
# An operation a second.
DEVICE = Device(
    name="abacus", memory_bytes=1000, bfloat16_flops=1.0, memory_bandwidth=1.0, link_bandwidth=1.0, words=()
)
CLUSTER = replace(ClusterConfig(), utilisation=1.0)


def sizes(model: dict[str, Any]) -> list[dict[str, int]]:
    return [{"width": width, "depth": 2} for width in (100, 30, 10)]


def plan(model: dict[str, Any], run: PlannedRun) -> Plan:
    width = model["architecture"]["width"]
    memory = dict.fromkeys(("parameters", "gradients", "optimizer", "ema", "activations", "buffers", "host"), 0)
    assert model["architecture"]["kept"] == 1
    return Plan(
        run=run,
        num_parameters=width,
        memory=Memory(**memory, peak=20 * width),
        flops_per_sample=36 * width,
        bytes_sent=0,
    )


def find(hours: float, **changes: Any) -> SizedPlan:
    given: dict[str, Any] = {
        "method": METHOD,
        "model": {"architecture": {"width": 1, "kept": 1}},
        "run": RUN,
        "max_steps": 10,
        "device": DEVICE,
        "cluster": CLUSTER,
        **changes,
    }
    return largest_within(hours, **given)


def test_the_largest_that_ends_in_time():
    # 10 steps of 36 x 30 seconds are 3 hours; 100 would need more memory than there is.
    found = find(3.0)
    assert found.hours == pytest.approx(3)
    assert found.options == "--model.architecture.width 30 --model.architecture.depth 2"
    assert find(2.9).plan.num_parameters == 10


def test_the_largest_that_fits_the_memory():
    assert find(1e6).plan.num_parameters == 30
    assert find(1e6, device=replace(DEVICE, memory_bytes=5000)).plan.num_parameters == 100


def test_none_in_time_says_how_long_the_smallest_takes():
    with pytest.raises(ConfigError, match=r"fits and ends 10 steps within 0\.5 h; the smallest takes 1\.0 h and"):
        find(0.5)


def test_none_in_memory_says_how_much_the_smallest_takes():
    with pytest.raises(ConfigError, match=r"takes 1\.0 h and 0\.0 of 0\.0 GiB: give more"):
        find(1e6, device=replace(DEVICE, memory_bytes=1))


def test_a_method_of_one_size():
    with pytest.raises(ConfigError, match="within_hours for toy: it has models of one size"):
        find(1.0, method=replace(METHOD, sizes=None))


def test_options_of_settings():
    assert as_options({"width": 8}) == "--model.architecture.width 8"


@pytest.mark.slow
def test_the_command_says_options_that_fit_takes(
    recipe, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("framework.pra.planning.sizes._DEPTHS", {96: 4, 64: 3})
    arguments = ["plan", "--config", str(recipe), "--device", "H100", "--trainer.max_steps", "1000"]
    main([*arguments, "--within_hours", "1"])
    out = capsys.readouterr().out
    assert "the largest model within 1 h has" in out
    assert "--model.architecture.width 96 --model.architecture.depth 4" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--within_hours", "0"], "within_hours 0"),
        (["--within_hours", "1"], "within_hours 1 without a known device"),
        (["--within_hours", "1", "--device", "48GiB"], "within_hours 1 without a known device"),
    ],
)
def test_what_cannot_be_found_is_said(recipe, capsys: pytest.CaptureFixture[str], options: list[str], message: str):
    with pytest.raises(SystemExit):
        main(["plan", "--config", str(recipe), *options])
    assert message in capsys.readouterr().err
