"""Users of both benchmarks: a script, or a language model that plays the task's instruction (the published setting)."""

from collections.abc import Sequence

from framework.core.errors import DataError, FrameworkError
from framework.core.random.seeding import seed_of
from framework.gbc.environments.tau_bench.interface import GREETING, STOP
from framework.gbc.language_models.interface import LanguageModel, Piece, Request
from framework.gbc.language_models.tool_calls.thoughts import without_thoughts

# The wording is ours; what it asks for is the benchmark's (Yao et al. 2024, section 3).
PROMPT = f"""You play a customer who talks to an agent of a company. What you want:

{{instruction}}

Say one short message at a time, in your own words. Tell only what is needed now, and nothing that is not given above; \
if you are asked for something that is not, say that you do not know it. When all that you want is done, or the agent \
hands you over to somebody else, say only {STOP}"""


class ScriptedUser:
    """Says the lines of a script, then ends the conversation.

    Args:
        lines: the messages in their order, or calls of the user's own tools in JSON; an empty script begins with a
            greeting.
    """

    def __init__(self, lines: Sequence[str] = ()) -> None:
        self._lines = tuple(lines) or ("Hello.",)
        self._next = 0

    def reset(self, instruction: str | None = None) -> str:
        """The first line; the instruction is not looked at."""
        self._next = 1
        return self._lines[0]

    def step(self, content: str) -> str:
        """The next line, or the end."""
        self._next += 1
        return self._lines[self._next - 1] if self._next <= len(self._lines) else STOP

    def read_results(self, results: Sequence[str]) -> str:
        """The next line, whatever its calls led to."""
        return self.step("")

    def get_total_cost(self) -> float:
        """Nothing."""
        return 0.0


class ModelUser:
    """A language model, local or on a server, as the user.

    Args:
        model: that answers.
        prompt: with {instruction}.
        max_new_tokens: bound of a message.
        seed: of the model's random numbers, with the number of the message.
    """

    def __init__(self, model: LanguageModel, *, prompt: str = PROMPT, max_new_tokens: int = 128, seed: int = 0) -> None:
        self._model, self._prompt, self._max_new_tokens, self._seed = model, prompt, max_new_tokens, seed
        self._instruction = ""
        self._said: list[tuple[str, str]] = []

    def reset(self, instruction: str | None = None) -> str:
        """Begins a conversation.

        Raises:
            FrameworkError: the model fails.
        """
        self._instruction = instruction or ""
        self._said = [("agent", GREETING)]
        return self._ask()

    def step(self, content: str) -> str:
        """The answer to the agent; errors as `reset`."""
        self._said.append(("agent", content))
        return self._ask()

    def read_results(self, results: Sequence[str]) -> str:
        """The next message or calls, after the results of its calls; errors as `reset`."""
        self._said += [("tool", each) for each in results]
        return self._ask()

    def get_total_cost(self) -> float:
        """Not known."""
        return 0.0

    def _ask(self) -> str:
        talk = "\n".join(f"{who}: {text}" for who, text in self._said)
        request = Request(
            step="user",
            prompt=self._prompt.replace("{instruction}", self._instruction),
            pieces=(Piece(text=f"{talk}\nyou:"),),
            max_new_tokens=self._max_new_tokens,
            seed=seed_of(self._seed, self._instruction, len(self._said)),
        )
        (reply,) = self._model.reply([request])
        if isinstance(reply, FrameworkError):
            raise reply
        text = without_thoughts(reply.output)
        if not text:
            raise DataError("the simulated user says nothing", hint="use another model or prompt for the user")
        self._said.append(("you", text))
        return text
