"""From a foreign log to a trace: a local model reads it in place of the models that wrote it.

Ours. The surrogate is teacher-forced: it is shown what an agent could see, as a transcript in one user message, and its
gradients for the recorded answer are the connection weights. They say what the answer follows from for the surrogate;
for the model that wrote the answer they are an estimate.

A context is filled with the prompt, the task, and then messages from the newest back, as long as they fit whole. Where
the newest alone does not fit, its end is kept. Of an answer longer than its share of the context, the beginning is.
The tokens of a whole log are bounded too: what a log costs does not grow with the square of its length.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from framework.core.errors import ConfigError, DataError
from framework.gbc.graph.spec import Agent, Graph, Tool, UserTurn
from framework.gbc.graph.trace import Span, Step, Trace, given_step, labelled_messages
from framework.gbc.graph.verbal_loss import Place, VerbalLoss
from framework.gbc.language_models.interface import Piece, Request
from framework.gbc.language_models.local import LocalModel
from framework.gbc.language_models.prompt_encoding import EncodedPrompt
from framework.gbc.logs.context_budget import LOG_TOKENS, context_length
from framework.gbc.logs.schema import Log, Message, Role

SURROGATE = "surrogate"
"""The model's name in traces and graphs of logs."""
TASK = "task"
"""The step with the task, where no user's message is the task."""

_PROMPT = "You are {agent}, one of the agents that work on a task together. Read what was said and answer as {agent}."


@dataclass(frozen=True, kw_only=True)
class SurrogateOptions:
    """How the surrogate reads.

    Args:
        max_tokens: context in tokens, input and answer; by default all that the model has.
        answer_share: of the context that an answer may take, in (0, 1).
        log_tokens: of all contexts of a log together. Where they are more, the longest are cut to one length, of 256 at
            least, of which the prompt and the task have a quarter each. By default 6,144 on a CPU and no bound
            elsewhere.
    """

    max_tokens: int | None = None
    answer_share: float = 0.25
    log_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.log_tokens is not None and self.log_tokens < 1:
            raise ConfigError(f"log_tokens {self.log_tokens}", hint="use 1 token or more, or leave it out")
        if (self.max_tokens is not None and self.max_tokens < 1) or not 0 < self.answer_share < 1:
            problem = f"max_tokens {self.max_tokens}, answer_share {self.answer_share}"
            raise ConfigError(problem, hint="use 1 token or more, and a share between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Unread:
    """What one step's context had no room for.

    Attributes:
        step: name of the step.
        dropped: numbers of the messages that it should have read.
        shortened: number of the message whose end alone it read; None where there is none.
        answer: characters at the end of the answer that were not read.
        prompt: characters at the ends of the prompt and the task that were not read.
    """

    step: str
    dropped: tuple[int, ...]
    shortened: int | None
    answer: int
    prompt: int = 0

    def __str__(self) -> str:
        parts = [f"{len(self.dropped)} older messages dropped"] if self.dropped else []
        parts += [f"message {self.shortened} cut to its end"] if self.shortened is not None else []
        parts += [f"{self.answer} characters of the answer left out"] if self.answer else []
        parts += [f"{self.prompt} characters of prompt and task left out"] if self.prompt else []
        return f"{self.step}: {', '.join(parts)}"


@dataclass(frozen=True, kw_only=True)
class ReadLog:
    """A log as the surrogate read it.

    Attributes:
        log: as recorded.
        trace: a step for each message, `NODE@NUMBER`, and one for the task where no message is it.
        graph: its nodes; agents' edges are `gradient`, tools' `pass_through`.
        names: what the log calls a node; nodes' names have letters, digits, _ and - only.
        unread: of the steps whose contexts were too short.
    """

    log: Log
    trace: Trace
    graph: Graph
    names: Mapping[str, str]
    unread: tuple[Unread, ...]


def read_log(log: Log, model: LocalModel, options: SurrogateOptions = SurrogateOptions()) -> ReadLog:
    """Reads a log with a surrogate.

    Args:
        log: the log.
        model: the surrogate.
        options: its context.

    Raises:
        DataError: a context that does not hold a prompt and the task.
        ConfigError: a chat template that cannot be used.
    """
    nodes = _nodes(log)
    builder = _TraceBuilder(log, nodes, model, options)
    steps = [builder.step(number) for number in range(len(log.messages))]
    if builder.task_step is not None:
        steps.insert(0, builder.task_step)
    outputs = tuple(builder.name(number) for number in log.output_messages)
    task = {"id": log.id, "task": log.task, "answer": log.answer, "expected": log.expected}
    trace = Trace(id=log.id, task=task, steps=tuple(steps), skipped=(), outputs=outputs)
    return ReadLog(
        log=log,
        trace=trace,
        graph=_graph(trace),
        names={node: agent for (agent, _), node in nodes.items()},
        unread=tuple(builder.unread),
    )


def log_loss(read: ReadLog) -> VerbalLoss:
    """0 for a run that did not fail, otherwise 1; the label is not looked at.

    Where the final answer stands in an output, its last occurrence is the place.
    """
    log = read.log
    if not log.failed:
        return VerbalLoss(value=0.0, text="")
    places: list[Place] = []
    for name in read.trace.outputs:
        output, answer = read.trace.step(name).output, (log.answer or "").strip()
        start = output.rfind(answer) if answer else -1
        if start >= 0:
            places.append(Place(step=name, start=start, stop=start + len(answer), expected=log.expected or ""))
    said = log.answer if log.answer is not None else read.trace.output
    text = f"Expected {log.expected!r}, the answer was {said!r}." if log.expected else f"The run failed with {said!r}."
    return VerbalLoss(value=1.0, text=text, places=tuple(places))


def sees(log: Log, number: int) -> tuple[int, ...]:
    """Numbers of the messages that a message was made from, blank ones left out; see `Message.reads`."""
    message = log.messages[number]
    earlier = range(number)
    if message.role == "user":
        seen: Sequence[int] = ()
    elif message.reads is not None:
        seen = sorted(set(message.reads))
    elif message.role == "agent":
        seen = earlier
    else:
        calling = [i for i in earlier if any(call.id == message.call for call in log.messages[i].tool_calls)]
        seen = (calling or [i for i in earlier if log.messages[i].role == "agent"])[-1:]
    return tuple(i for i in seen if log.messages[i].text.strip())


class _TraceBuilder:
    """Makes the steps of one log."""

    def __init__(
        self, log: Log, nodes: Mapping[tuple[str, Role], str], model: LocalModel, options: SurrogateOptions
    ) -> None:
        self.log, self.nodes, self.model = log, nodes, model
        self.context = min(model.max_tokens, options.max_tokens or model.max_tokens)
        self.unread: list[Unread] = []
        self.task_step: Step | None = None
        # The task as a user said it, which is then never dropped; otherwise a step of its own.
        task = log.task.strip()
        users = (number for number, message in enumerate(log.messages) if message.role == "user")
        self.task_number = next((number for number in users if log.messages[number].content.strip() == task), None)
        if task and self.task_number is None:
            self.task_step = _plain_step(TASK, nodes[TASK, "user"], "user", log.task)
        self.lengths = [len(self._tokens(_line(message))[0]) for message in log.messages]
        budget = options.log_tokens or (LOG_TOKENS if model.device.type == "cpu" else None)
        level = None if budget is None else context_length(self._wanted(), budget)
        self.room = self.context if level is None else min(self.context, level)
        self.most_prompt = None if level is None else self.room // 4
        self.most_answer = max(1, int(self.room * options.answer_share))

    def _wanted(self) -> list[int]:
        """Of each answer, the tokens that it and all that is read for it have."""
        task = len(self._tokens(self.log.task)[0]) if self.task_step is not None else 0
        prompts = {agent: len(self._tokens(prompt)[0]) for agent, prompt in self.log.prompts.items()}
        return [
            task + prompts.get(message.agent, 0) + sum(self.lengths[i] for i in (*sees(self.log, number), number))
            for number, message in enumerate(self.log.messages)
            if message.role == "agent"
        ]

    def _beginning(self, text: str) -> str:
        """As much of a prompt or a task as is read."""
        spans = self._tokens(text)[1] if self.most_prompt is not None else ()
        return text if len(spans) <= (self.most_prompt or 0) else text[: spans[(self.most_prompt or 1) - 1][1]]

    def _unread_of_prompt(self, number: int, seen: Sequence[int]) -> int:
        """Characters of the prompt and the task that a step does not read."""
        texts = [self.log.prompts.get(self.log.messages[number].agent, "").strip()]
        texts += [self.log.task.strip()] if self.task_step is not None or self.task_number in seen else []
        return sum(len(text) - len(self._beginning(text)) for text in texts)

    def name(self, number: int) -> str:
        """The step of a message."""
        message = self.log.messages[number]
        return f"{self.nodes[message.agent, message.role]}@{number}"

    def step(self, number: int) -> Step:
        """The step of a message, as the surrogate reads it."""
        message = self.log.messages[number]
        node = self.nodes[message.agent, message.role]
        if message.role == "agent":
            return self._agent_step(number, node)
        seen = [(self.name(i), self.log.messages[i].text.strip()) for i in sees(self.log, number)]
        return _plain_step(self.name(number), node, message.role, message.text, seen)

    def _agent_step(self, number: int, node: str) -> Step:
        message, name = self.log.messages[number], self.name(number)
        ids, spans = self._tokens(message.text)
        ids, spans = ids[: self.most_answer], _without_overlaps(spans[: self.most_answer])
        seen = sees(self.log, number)
        encoded, kept, shortened = self._fit(number, seen, len(ids))
        rest = len(message.text) - (spans[-1][1] if spans else 0) if len(ids) == self.most_answer else 0
        dropped = tuple(i for i in seen if i not in kept)
        prompt = self._unread_of_prompt(number, seen)
        if dropped or shortened is not None or rest or prompt:
            self.unread.append(Unread(step=name, dropped=dropped, shortened=shortened, answer=rest, prompt=prompt))
        return Step(
            name=name,
            node=node,
            kind="agent",
            model=SURROGATE,
            input_text=encoded.text,
            input_ids=encoded.ids,
            input_spans=encoded.spans,
            blocks=encoded.blocks,
            controls=(),
            output=message.text,
            output_ids=ids,
            output_spans=spans,
            finish="stop",
        )

    def _fit(self, number: int, seen: Sequence[int], answer: int) -> tuple[EncodedPrompt, dict[int, str], int | None]:
        """The input, the texts in it by message, and the message that was cut."""
        always = {i: self._beginning(self.log.messages[i].text.strip()) for i in seen if i == self.task_number}
        bare = self.model.encode(self._request(number, always, answer=0))
        room = self.context - answer - len(bare.ids)
        if room < 0:
            raise DataError(
                f"log {self.log.id!r}, message {number}: prompt and task take {len(bare.ids)} tokens and the answer "
                f"{answer}, the surrogate's context holds {self.context}",
                hint="use a surrogate with a longer context, or raise max_tokens",
            )
        room = min(room, max(0, self.room - answer - len(bare.ids))) if self.most_prompt is not None else room
        while True:
            kept, shortened = self._newest(always, [i for i in seen if i not in always], room)
            encoded = self.model.encode(self._request(number, kept, answer=0))
            excess = len(encoded.ids) + answer - self.context
            if excess <= 0 or kept == always:
                return encoded, kept, shortened
            # Lines take fewer tokens together than apart, but for rare merges.
            room -= excess

    def _newest(self, always: Mapping[int, str], seen: Sequence[int], room: int) -> tuple[dict[int, str], int | None]:
        """The newest messages that fit into a number of tokens; if none does, the end of the newest."""
        kept, shortened = dict(always), None
        for number in reversed(seen):
            if self.lengths[number] > room:
                if number == seen[-1]:
                    text = self._end(self.log.messages[number], room)
                    kept, shortened = (kept | {number: text}, number) if text else (kept, None)
                break
            kept[number] = self.log.messages[number].text
            room -= self.lengths[number]
        return dict(sorted(kept.items())), shortened

    def _end(self, message: Message, room: int) -> str:
        """As much of a message's end as fits into a line of `room` tokens."""
        frame = len(self._tokens(_line(replace(message, content="", tool_calls=())))[0])
        spans = self._tokens(message.text)[1]
        left = min(max(0, room - frame), len(spans))
        return message.text[spans[-left][0] :].strip() if left else ""

    def _request(self, number: int, kept: Mapping[int, str], answer: int) -> Request:
        agent = self.log.messages[number].agent
        pieces: list[Piece] = []
        if self.task_step is not None:
            task = Piece(text=self._beginning(self.log.task.strip()), source=TASK)
            pieces += [Piece(text="Task: "), task, Piece(text="\n\n")]
        for i, text in kept.items():
            before, after = _frame(self.log.messages[i])
            pieces += [Piece(text=before), Piece(text=text, source=self.name(i)), Piece(text=after)]
        return Request(
            step=self.name(number),
            prompt=self._beginning(self.log.prompts.get(agent, "").strip()) or _PROMPT.format(agent=agent),
            pieces=(*pieces, Piece(text=f"{agent}:")),
            max_new_tokens=answer,
        )

    def _tokens(self, text: str) -> tuple[tuple[int, ...], tuple[Span, ...]]:
        """Tokens of a text by itself, and where they lie in it."""
        encoding = self.model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return tuple(encoding["input_ids"]), tuple((start, stop) for start, stop in encoding["offset_mapping"])


def _frame(message: Message) -> tuple[str, str]:
    return f"{message.agent}: ", "\n\n"


def _line(message: Message) -> str:
    return message.text.join(_frame(message))


def _without_overlaps(spans: Sequence[Span]) -> tuple[Span, ...]:
    """A character of several tokens belongs to the last of them, as in `offsets.output_spans`."""
    found: list[Span] = []
    following = spans[-1][1] if spans else 0
    for start, stop in reversed(spans):
        stop = min(stop, following)
        following = min(start, stop)
        found.append((following, stop))
    return tuple(reversed(found))


def _plain_step(name: str, node: str, kind: Role, output: str, seen: Sequence[tuple[str, str]] = ()) -> Step:
    """A user's or a tool's message."""
    text, blocks = labelled_messages((source, source, said) for source, said in seen)
    return given_step(name, node=node, kind=kind, output=output, input_text=text, blocks=blocks)


def _nodes(log: Log) -> dict[tuple[str, Role], str]:
    """A node for every speaker in each of its roles; the task has one too."""
    speakers: list[tuple[str, Role]] = [(TASK, "user"), *((each.agent, each.role) for each in log.messages)]
    nodes: dict[tuple[str, Role], str] = {}
    for agent, role in dict.fromkeys(speakers):
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", agent)
        plain = plain if re.match(r"[A-Za-z_]", plain) else f"{role}_{plain}"
        taken = set(nodes.values())
        names = (plain, f"{plain}_{role}", *(f"{plain}_{number}" for number in range(2, len(taken) + 3)))
        nodes[agent, role] = next(name for name in names if name not in taken)
    return nodes


def _graph(trace: Trace) -> Graph:
    """The nodes of a trace: what `attribute` asks of a graph."""
    kinds = {step.node: step.kind for step in trace.steps}

    def of(kind: str) -> list[str]:
        return [node for node, its in kinds.items() if its == kind]

    return Graph(
        agents=tuple(Agent(name=node, prompt="", model=SURROGATE, reads=()) for node in of("agent")),
        tools=tuple(Tool(name=node, reads=(), function=_recorded) for node in of("tool")),
        users=tuple(UserTurn(name=node) for node in of("user")),
    )


def _recorded(texts: Mapping[str, str]) -> str:
    raise DataError("a tool of a foreign log cannot run", hint="attribute the log without leave_one_out")
