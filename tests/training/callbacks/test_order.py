"""What comes after all other callbacks, and in which order among itself."""

from pathlib import Path

from lightning.pytorch import Callback

from framework.testing.models import quiet_trainer, tiny_module
from framework.training.callbacks.order import AfterOthers, put_last
from framework.training.callbacks.preemption import Preemption
from framework.training.callbacks.watchdog import Watchdog, WatchdogConfig


def test_a_callback_is_put_last_once(tmp_path: Path):
    last, others = Callback(), [Callback(), Callback()]
    trainer = quiet_trainer(tmp_path, callbacks=[last, *others])
    for _ in range(2):
        put_last(trainer, last)
        assert trainer.callbacks[-3:] == [*others, last]  # type: ignore[attr-defined]


def test_an_action_is_done_with_the_trainer(tmp_path: Path):
    seen: list[object] = []
    trainer = quiet_trainer(tmp_path)
    AfterOthers(seen.append).on_train_batch_end(trainer, tiny_module(), None, None, 0)
    assert seen == [trainer]


def test_a_checkpoint_of_a_preempted_run_comes_after_the_start_of_the_next_step(tmp_path: Path):
    watchdog, preemption, other = Watchdog(WatchdogConfig()), Preemption(), Callback()
    trainer = quiet_trainer(tmp_path, callbacks=[watchdog, preemption, other])
    for callback in (watchdog, preemption, watchdog, preemption):
        callback.setup(trainer, tiny_module(), "fit")
    found = trainer.callbacks  # type: ignore[attr-defined]
    assert found[-1] is preemption
    assert isinstance(found[-2], AfterOthers)
    assert sum(isinstance(each, AfterOthers) for each in found) == 1
    watchdog.teardown(trainer, tiny_module(), "fit")
