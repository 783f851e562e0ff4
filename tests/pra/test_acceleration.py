"""Every faster way draws the images of the plain one; captured and compiled steps serve all tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor

from framework.core.compat.torch_compat import packs_weights
from framework.pra.acceleration import CapturedStep, Replay, accelerate, compile_for_sampling
from framework.pra.generate import draw_numbered
from framework.pra.network.model import PRA
from framework.pra.network.packing import Precision
from framework.pra.sampling import SamplerConfig, TokenStep, next_token, sample
from framework.testing.models import tiny_model
from framework.testing.processes.forked import run_forked

CPU = torch.device("cpu")
LABELS = [0, 1, 2, 0, 1]
GUIDED = SamplerConfig(steps=4, guidance=2.0)


def drawn(
    model: PRA, *, step: TokenStep = next_token, sampler: SamplerConfig = GUIDED, precision: Precision = "fp32"
) -> Tensor:
    numbers = range(len(LABELS))
    return draw_numbered(model, LABELS, numbers, seed=3, sampler=sampler, precision=precision, step=step)


def larger_model(**changes: object) -> PRA:
    return tiny_model(image_size=6, depth=2, head_depth=3, **changes)


# The tolerances that the documents state: 1e-4 in fp32, and 3 % of the images' spread on average in bfloat16.


@pytest.mark.parametrize("modulation", ["joint", "separate"])
@pytest.mark.parametrize("sampler", [GUIDED, SamplerConfig(steps=3, method="heun")], ids=["guided", "heun"])
def test_packed_sampling_equals_the_plain_one(modulation: str, sampler: SamplerConfig):
    model = larger_model(head_modulation=modulation)
    ready = accelerate(model, "fp32", "auto", CPU)
    made = drawn(ready.model, step=ready.step, sampler=sampler)
    torch.testing.assert_close(made, drawn(model, sampler=sampler), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not packs_weights(torch.bfloat16), reason="no bfloat16 on this processor")
def test_packed_bfloat16_is_near():
    model = larger_model()
    plain, packed = drawn(model), drawn(accelerate(model, "bf16", "auto", CPU).model, precision="bf16")
    assert packed.dtype == torch.float32
    assert 0 < (packed - plain).abs().mean() < 0.03 * plain.std()


def test_eager_is_the_model_itself():
    model = tiny_model()
    ready = accelerate(model, "fp32", "eager", CPU)
    assert ready.model is model
    assert ready.step is next_token


@pytest.mark.slow
def test_packed_images_do_not_depend_on_the_batch():
    ready = accelerate(larger_model(), "fp32", "auto", CPU)
    numbered = (range(5), range(1), range(1, 4), range(4, 5))
    whole, *parts = (draw_numbered(ready.model, LABELS, numbers, seed=3, sampler=GUIDED) for numbers in numbered)
    assert torch.equal(torch.cat(parts), whole)


def test_filled_up_batches_have_the_same_images():
    model = tiny_model()
    few = draw_numbered(model, LABELS, range(2), seed=3, sampler=GUIDED)
    filled = draw_numbered(model, LABELS, range(2), seed=3, sampler=GUIDED, fill_up_to=30)
    assert filled.shape == few.shape
    torch.testing.assert_close(filled, few, rtol=1e-4, atol=1e-4)


# A captured step.


class Recorder:
    """In place of a CUDA graph: does the work again on the same tensors, after a warm-up that leaves its traces."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, work: Replay) -> Replay:
        self.captures += 1
        work()

        def replay() -> None:
            self.replays += 1
            work()

        return replay


@pytest.mark.slow
def test_a_captured_step_serves_all_tokens_and_batches():
    model, recorder = larger_model(), Recorder()
    step = CapturedStep(recorder)
    for labels in (LABELS, LABELS[::-1]):
        made = draw_numbered(model, labels, range(5), seed=3, sampler=GUIDED, step=step)
        torch.testing.assert_close(made, draw_numbered(model, labels, range(5), seed=3, sampler=GUIDED))
    assert recorder.captures == 1
    assert recorder.replays == 2 * (model.config.num_tokens - 1)


def test_a_step_that_cannot_be_captured_runs_as_it_is(caplog: pytest.LogCaptureFixture):
    def refuse(work: Replay) -> Replay:
        raise RuntimeError("no graphs on this device")

    model, sampler = tiny_model(), SamplerConfig(steps=2)
    labels = torch.tensor([0, 1])
    made = sample(model, labels, [1, 2], sampler, step=CapturedStep(refuse))
    torch.testing.assert_close(made, sample(model, labels, [1, 2], sampler))
    assert "cannot be captured as one graph: no graphs on this device" in caplog.text


def test_another_size_or_sampler_is_captured_anew():
    model, recorder = tiny_model(), Recorder()
    step = CapturedStep(recorder)
    wide = LABELS * 4
    for labels, sampler in ((LABELS, GUIDED), (wide, GUIDED), (wide, SamplerConfig(steps=2)), (LABELS, GUIDED)):
        made = draw_numbered(model, labels, range(len(labels)), seed=3, sampler=sampler, step=step)
        expected = draw_numbered(model, labels, range(len(labels)), seed=3, sampler=sampler)
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    assert recorder.captures == 4


# Compiled parts, in a process without the checks of shapes.


def draw_compiled() -> dict[str, Any]:
    from torch._dynamo.utils import counters

    model = larger_model(head_modulation="separate")
    with torch.compiler.set_stance("default", force_backend="aot_eager"):
        counters.clear()
        ready = compile_for_sampling(model)
        differences = []
        for sampler in (GUIDED, SamplerConfig(steps=7, guidance=3.0)):
            differences.append((drawn(ready, sampler=sampler) - drawn(model, sampler=sampler)).abs().max().item())
    return {
        "differences": differences,
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": dict(counters["graph_break"]),
    }


@pytest.mark.slow
def test_compiled_parts_serve_all_tokens_steps_and_batches():
    found = run_forked(draw_compiled, 1, timeout=300).results[0]
    assert max(found["differences"]) < 1e-4
    # The transformer's step, the head's and the decoder.
    assert (found["graphs"], found["breaks"]) == (3, {})
