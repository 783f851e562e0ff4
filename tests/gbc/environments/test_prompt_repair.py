"""Repair of prompts, with a model that obeys them."""

from framework.gbc.environments.prompt_repair import EVENLY, Damage, Lead, repair, success_of
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.graph.trace import message_block
from framework.gbc.graph.verbal_loss import slot_loss
from framework.gbc.language_models.callables.function import CallableModel
from framework.gbc.language_models.interface import Reply, Request


class Obedient:
    """Says what it read where its prompt is good, and nonsense where it is bad."""

    def reply(self, requests: list[Request]) -> list[Reply]:
        """The answers to requests."""
        return [
            reply(each, each.message.rpartition("=")[2].strip() if "good" in each.prompt else "?") for each in requests
        ]


def reply(request: Request, said: str) -> Reply:
    """Of an agent without tokens."""
    sources = [piece.source for piece in request.pieces if piece.source]
    return Reply(
        input_text=request.message,
        input_ids=(),
        input_spans=(),
        blocks=tuple(message_block(source, "") for source in sources),
        output=f"x={said}" if request.step == "b" else said,
        output_ids=(),
        output_spans=(),
        finish="stop",
    )


def test_a_damage_is_repaired_led_and_evenly():
    first = Agent(name="a", prompt="good", model="m", reads=("user",), max_new_tokens=3, template="u={user}")
    last = Agent(name="b", prompt="bad", model="m", reads=("a",), max_new_tokens=3, template="a={a}")
    graph, models = Graph(agents=(first, last)), {"m": Obedient()}
    tasks = tuple({"id": str(number), "user": str(number), "expected": {"x": str(number)}} for number in range(4))
    assert success_of(graph, models, tasks, slot_loss) == 0
    assert success_of(graph.with_prompts({"b": "good"}), models, tasks, slot_loss) == 1
    damage = Damage(
        graph=graph,
        kind="wrong_example",
        culprit="b",
        candidates={"a": ["good", "worse"], "b": ["good", "bad"]},
        train=tasks[:2],
        held_out=tasks[2:],
        healthy=1.0,
        faulty=0.0,
    )
    leads = {
        "evidence": Lead(by="diagnosis"),
        "written": Lead(by="diagnosis", writer=CallableModel(lambda prompt, message: "<prompt>good</prompt>")),
        "nothing": Lead(by="diagnosis", writer=CallableModel(lambda prompt, message: "I cannot say.")),
    }
    led, written, nothing, evenly = repair(models, [damage], slot_loss, leads=leads)
    assert (led.optimizer, led.won_back, led.evaluations, led.named_first) == ("evidence", 1.0, 1, True)
    assert (written.optimizer, written.won_back, written.evaluations, written.named_first) == ("written", 1.0, 1, True)
    assert (nothing.optimizer, nothing.won_back, nothing.evaluations, nothing.named_first) == ("nothing", 0.0, 0, False)
    assert (evenly.optimizer, evenly.won_back) == (EVENLY, 1.0)
    assert 1 <= evenly.evaluations <= 2
