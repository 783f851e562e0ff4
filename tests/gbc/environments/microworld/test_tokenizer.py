"""The micro world's tokenizer."""

from framework.gbc.environments.microworld.rules import RuleModel
from framework.gbc.environments.microworld.system import MODEL, draw_system, make_graph
from framework.gbc.environments.microworld.tasks import make_tasks
from framework.gbc.environments.microworld.tokenizer import make_tokenizer
from framework.gbc.execution.runner import run_graph
from framework.language_model.chat_tokenizer import UNKNOWN


def test_every_word_is_a_token():
    tokenizer = make_tokenizer()
    for seed in range(10):
        system = draw_system(seed)
        (trace,) = run_graph(make_graph(system), {MODEL: RuleModel()}, make_tasks(system, 1))
        for step in trace.steps:
            assert UNKNOWN not in tokenizer.tokenize(f"{step.input_text} {step.output}")
