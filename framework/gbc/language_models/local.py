"""Hugging Face causal language models with local weights."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from jinja2 import TemplateError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from framework.core.errors import ConfigError, DataError
from framework.gbc.graph.trace import Block, Span
from framework.gbc.language_models.agent_parameters import (
    AgentParameters,
    Reader,
    SoftPrompts,
    gate_scale,
    gates_of,
    read_steering,
    soft_place,
)
from framework.gbc.language_models.lora import Adapters, reading
from framework.gbc.language_models.prompt_encoding import Request, output_spans, render_blocks, token_spans


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A model's answer and what it saw; the fields are those of `trace.Step`.

    Attributes:
        usage: tokens read and written, as a server counts them; None where `input_ids` and `output_ids` tell.
    """

    input_text: str
    input_ids: tuple[int, ...]
    input_spans: tuple[Span, ...]
    blocks: tuple[Block, ...]
    output: str
    output_ids: tuple[int, ...]
    output_spans: tuple[Span, ...]
    finish: Literal["stop", "length"]
    usage: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A model's input; the fields are those of `trace.Step`."""

    text: str
    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class LocalModelConfig:
    """A causal language model in a folder, and how it is used.

    Args:
        path: the folder, with the weights as safetensors and a fast tokenizer.
        device: where it runs.
        dtype: of the weights.
        attention: implementation in transformers, such as sdpa or eager; by default the architecture's own choice.
        system_role: `system`: the prompt is the system message; `user`: the prompt and an empty line precede the
            message, for chat templates without a system role.
        template_options: further variables of the chat template, such as `enable_thinking: false`.
        plain_format: for tokenizers without a chat template: the text with {prompt} and {message}; wins over a
            chat template.
        temperature: of sampling; 0 takes the likeliest token.
        batch_size: most sequences in one pass of generation.
        soft_prompts: a file of `framework optimize --optimizer soft_prompt` or of a training with `GBCModule`: soft
            prompts by agent and, of the latter, gates.
        adapters: a folder with a folder of each agent's LoRA adapter, in peft's format: a training's `best/adapters`.
    """

    path: str
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: str | None = None
    system_role: Literal["system", "user"] = "system"
    template_options: dict[str, Any] = field(default_factory=dict)
    plain_format: str | None = None
    temperature: float = 0.0
    batch_size: int = 32
    soft_prompts: str | None = None
    adapters: str | None = None

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.batch_size < 1:
            problem = f"temperature {self.temperature}, batch_size {self.batch_size}"
            raise ConfigError(problem, hint="use a temperature of 0 or more and a batch of 1 or more")
        if self.plain_format is not None:
            for name in ("{prompt}", "{message}"):
                if self.plain_format.count(name) != 1:
                    raise ConfigError(f"plain_format {self.plain_format!r}", hint=f"name {name} in it once")


class LocalModel:
    """A causal language model and its tokenizer: generation without gradients, and the parts that gradients need.

    The parameters are frozen: gradients are taken to the input only.

    Attributes:
        soft: soft prompts by agent, `token hidden`: embeddings that follow the agent's prompt (`soft.py`).
        gates: one value each, by the name of the message (`agent_parameters.py`).
        adapters: LoRA adapters by agent (`adapters.py`).

    Raises:
        ConfigError: a tokenizer without offsets, or without a chat template and no `plain_format`.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: LocalModelConfig | None = None
    ) -> None:
        self.config = config or LocalModelConfig(path=str(model.name_or_path))
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.soft: SoftPrompts = nn.ParameterDict()
        self.gates: dict[str, Tensor] = {}
        self.adapters = Adapters(model)
        if not tokenizer.is_fast:
            hint = "use a folder with tokenizer.json"
            raise ConfigError(f"the tokenizer of {self.config.path} gives no offsets", hint=hint)
        if tokenizer.chat_template is None and self.config.plain_format is None:
            raise ConfigError(
                f"the tokenizer of {self.config.path or 'the model'} has no chat template",
                hint="use an instruction-tuned model, or set plain_format, such as '{prompt}\\n\\n{message}\\n'",
            )
        self._ends = _end_tokens(model, tokenizer)
        self._mean_embedding: Tensor | None = None

    @classmethod
    def load(cls, config: LocalModelConfig) -> "LocalModel":
        """The model of a folder; nothing is downloaded and no code of the folder is run.

        Raises:
            ConfigError: no such folder, files that are missing or damaged, or another architecture.
        """
        if not Path(config.path).is_dir():
            raise ConfigError(f"{config.path} is no folder", hint="give a folder made by save_pretrained")
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(config.path, **options)
            model = AutoModelForCausalLM.from_pretrained(
                config.path,  # pyright: ignore[reportArgumentType]
                dtype=getattr(torch, config.dtype),
                attn_implementation=config.attention,
                use_safetensors=True,
                **options,
            )
        except (OSError, ValueError, ImportError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(f"{config.path} holds no usable model ({reason})", hint="save it again") from error
        loaded = cls(model.to(config.device), tokenizer, config)  # pyright: ignore[reportArgumentType]
        if config.soft_prompts is not None:
            hidden_size = int(model.config.get_text_config().hidden_size)
            loaded.soft, loaded.gates = read_steering(
                config.soft_prompts, device=config.device, hidden_size=hidden_size
            )
        if config.adapters is not None:
            loaded.adapters.read(config.adapters)
        return loaded

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device

    @property
    def max_tokens(self) -> int:
        """Context length, in tokens."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 2**31))

    def encode(self, request: Request) -> Encoded:
        """The model's input for a request.

        Raises:
            ConfigError: a chat template that cannot be used.
            DataError: more tokens than the context holds.
        """
        text, blocks = render_blocks(self._render, request)
        ids, offsets = self.tokenize(text)
        soft = self.soft_prompt(request.step)
        length = len(ids) + (0 if soft is None else len(soft))
        if length + request.max_new_tokens > self.max_tokens:
            raise DataError(
                f"{request.step!r}: {length} input tokens and {request.max_new_tokens} new ones, the context of the "
                f"model holds {self.max_tokens}",
                hint="shorten the prompt or what is read, or use a model with a longer context",
            )
        if not ids:
            raise DataError(f"{request.step!r}: an empty input", hint="give the agent a prompt")
        spans = token_spans(offsets, [block.chars for block in blocks])
        found = tuple(replace(block, tokens=span) for block, span in zip(blocks, spans, strict=True))
        return Encoded(text=text, ids=ids, spans=offsets, blocks=found)

    def tokenize(self, text: str) -> tuple[tuple[int, ...], tuple[Span, ...]]:
        """The tokens of a whole input, chat template included, and where each lies in the text."""
        # The text has the special tokens that the template wants; a plain format leaves them to the tokenizer.
        encoding = self.tokenizer(
            text,
            add_special_tokens=self.config.plain_format is not None,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        return tuple(encoding["input_ids"]), tuple((start, stop) for start, stop in encoding["offset_mapping"])

    def reply(self, requests: Sequence[Request]) -> list[Reply | DataError]:
        """The answers to requests, in their order; batches of similar length, left-padded.

        A request that does not fit has its error in place of an answer.
        """
        encoded: dict[int, Encoded] = {}
        answers: dict[int, Reply | DataError] = {}
        for index, request in enumerate(requests):
            try:
                encoded[index] = self.encode(request)
            except DataError as error:
                answers[index] = error
        order = sorted(encoded, key=lambda index: (requests[index].max_new_tokens, len(encoded[index].ids)))
        while order:
            bound = requests[order[0]].max_new_tokens
            same = [index for index in order[: self.config.batch_size] if requests[index].max_new_tokens == bound]
            order = order[len(same) :]
            seeds = [requests[index].seed for index in same]
            inputs = [encoded[index].ids for index in same]
            readers = [
                self.reader(requests[index].step, encoded[index].blocks, len(encoded[index].ids)) for index in same
            ]
            outputs = self.generate(inputs, max_new_tokens=bound, seeds=seeds, readers=readers)
            for index, output in zip(same, outputs, strict=True):
                answers[index] = self._reply(encoded[index], output)
        return [answers[index] for index in range(len(requests))]

    @torch.no_grad()
    def generate(
        self,
        inputs: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        seeds: Sequence[int],
        readers: Sequence[Reader | None] = (),
    ) -> list[tuple[int, ...]]:
        """New tokens after each input, up to and with the end token, in one batch.

        Args:
            inputs: token ids, at least one each.
            max_new_tokens: bound.
            seeds: one for each input; unless greedy, its tokens are a function of input and seed alone.
            readers: how the inputs are read, if not all as they are.
        """
        padding = self._ends[0] if self._ends else 0
        ids, mask = pad_left(inputs, padding, self.device)
        read = {"inputs": ids}
        readers = readers or [None] * len(inputs)
        if any(reader is not None and reader.changes_embeddings for reader in readers):
            embed = self.model.get_input_embeddings()
            rows = [embed(torch.tensor(row, device=self.device)) for row in inputs]
            rows = [row if reader is None else reader.read(row) for row, reader in zip(rows, readers, strict=True)]
            _, mask = pad_left([[0] * len(row) for row in rows], padding, self.device)
            read = {"inputs_embeds": pad_sequence(rows, batch_first=True, padding_side="left")}
        options = GenerationConfig(
            max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=self._ends or None, pad_token_id=padding
        )
        # Adding Gumbel noise and taking the maximum is sampling (Gumbel 1954), with a generator for each row.
        noise = [_GumbelNoise(seeds, self.config.temperature)] if self.config.temperature else []
        adapters = [None if reader is None else reader.adapter for reader in readers]
        with _own_defaults(self.model), reading(adapters):
            output = self.model.generate(  # pyright: ignore[reportCallIssue]
                **read, attention_mask=mask, generation_config=options, logits_processor=LogitsProcessorList(noise)
            )
        assert isinstance(output, Tensor)
        # From embeddings, the new tokens come alone.
        return [self._until_end(row) for row in output[:, ids.shape[1] if "inputs" in read else 0 :].tolist()]

    def soft_prompt(self, step: str) -> Tensor | None:
        """The soft prompt of a step's agent, `token hidden`; None where it has none."""
        return self.soft.get(step.partition("@")[0])

    def reader(self, step: str, blocks: Sequence[Block], length: int) -> Reader | None:
        """How a step's agent reads an input of so many tokens; None where it does as the plain model does."""
        agent = step.partition("@")[0]
        soft, gated, adapter = self.soft_prompt(step), gates_of(step, blocks, self.gates), self.adapters.of(agent)
        if soft is None and not gated and adapter is None:
            return None
        return Reader(
            agent=agent,
            place=soft_place(blocks),
            soft=soft,
            scale=gate_scale(gated, length, self.device) if gated else None,
            neutral=self._neutral() if gated else None,
            adapter=adapter,
        )

    def set_agent_parameters(self, agent_parameters: AgentParameters) -> None:
        """Other soft prompts, gates and adapters in place of all that are there."""
        self.soft, self.gates = dict(agent_parameters.soft), dict(agent_parameters.gates)
        self.adapters.put(agent_parameters.adapters)

    @torch.no_grad()
    def _neutral(self) -> Float[Tensor, "hidden"]:
        if self._mean_embedding is not None:
            return self._mean_embedding
        embed = self.model.get_input_embeddings()
        count = embed.num_embeddings
        assert isinstance(count, int)
        self._mean_embedding = found = embed(torch.arange(count, device=self.device)).float().mean(dim=0)
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, without special tokens."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def _reply(self, encoded: Encoded, output: tuple[int, ...]) -> Reply:
        text = self.decode(output)
        prefixes = [self.decode(output[: stop + 1]) for stop in range(len(output))]
        return Reply(
            input_text=encoded.text,
            input_ids=encoded.ids,
            input_spans=encoded.spans,
            blocks=encoded.blocks,
            output=text,
            output_ids=output,
            output_spans=output_spans(prefixes, text),
            finish="stop" if output and output[-1] in self._ends else "length",
        )

    def _render(self, prompt: str, message: str) -> str:
        if self.config.plain_format is not None:
            # Not str.format: other braces stand for themselves.
            parts = re.split(r"(\{prompt\}|\{message\})", self.config.plain_format)
            return "".join({"{prompt}": prompt, "{message}": message}.get(part, part) for part in parts)
        user = {"role": "user", "content": message}
        messages = [{"role": "system", "content": prompt}, user]
        if self.config.system_role == "user":
            messages = [{"role": "user", "content": f"{prompt}\n\n{message}"}]
        elif not prompt:
            messages = [user]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **self.config.template_options
            )
        except TemplateError as error:
            raise ConfigError(
                f"the chat template of {self.config.path or 'the model'} refuses the messages ({error})",
                hint="set system_role to user, or set plain_format",
            ) from None
        assert isinstance(text, str)
        return text

    def _until_end(self, row: list[int]) -> tuple[int, ...]:
        stop = next((index + 1 for index, token in enumerate(row) if token in self._ends), len(row))
        return tuple(row[:stop])


def pad_left(rows: Sequence[Sequence[int]], padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and their mask, both int64 `batch token`; the padding stands before the tokens."""
    width = max(map(len, rows))
    ids = torch.tensor([[padding] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


class _GumbelNoise(LogitsProcessor):
    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.stack([torch.rand(scores.shape[1], generator=generator) for generator in self.generators])
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores.float() + self.temperature * noise.to(scores.device)


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    declared = getattr(model.generation_config, "eos_token_id", None)
    tokens = list(declared) if isinstance(declared, list | tuple) else [declared]
    tokens.append(tokenizer.eos_token_id)
    return [token for token in dict.fromkeys(tokens) if isinstance(token, int)]


@contextmanager
def _own_defaults(model: PreTrainedModel) -> Iterator[None]:
    """Without the sampling options that the model's folder may bring."""
    kept = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = kept
