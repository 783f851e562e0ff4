"""Hugging Face causal language models with local weights."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Float
from jinja2 import TemplateError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from framework.core.devices import tensor_on
from framework.core.errors import ConfigError, DataError
from framework.core.serialization import JsonDict
from framework.gbc.graph.trace import Block, Span
from framework.gbc.language_models.agent_parameters import (
    AgentParameters,
    BoundParameters,
    SoftPrompts,
    gate_scale,
    load_soft_prompts,
    message_gates,
    soft_prompt_position,
)
from framework.gbc.language_models.generation import (
    GumbelNoise,
    StopTexts,
    end_tokens,
    pad_left,
    plain_generation_config,
    until_end,
    until_stop,
)
from framework.gbc.language_models.interface import Reply, Request, stop_in
from framework.gbc.language_models.layers.fast import use_fast_layers
from framework.gbc.language_models.lora import Adapters, active_adapters
from framework.gbc.language_models.offsets import output_spans, token_spans
from framework.gbc.language_models.prefix_cache import prompt_states
from framework.gbc.language_models.prompt_encoding import EncodedPrompt, render_blocks
from framework.gbc.language_models.transformers_compat import (
    Spread,
    context_length,
    decoded,
    embeddings_of,
    generated,
    hidden_size,
    keeps_keys_and_values,
    load_pretrained,
    rendered_chat,
    vocabulary_size,
)
from framework.gbc.shapes import Embedding, Gate, SoftPrompt, ints


@dataclass(frozen=True, kw_only=True)
class LocalModelConfig:
    """A causal language model in a folder, and how it is used.

    Args:
        path: the folder, with the weights as safetensors and a fast tokenizer.
        device: where it runs.
        device_map: how a model that no single device holds is spread (accelerate's), in place of `device`.
        dtype: of the weights.
        weight_bits: 4 or 8: of linear layers (bitsandbytes); all else is in `dtype`.
        attention: implementation in transformers, such as sdpa or eager; by default the architecture's own choice.
        system_role: `system`: the prompt is the system message; `user`: the prompt and an empty line precede the
            message, for chat templates without a system role.
        template_options: further variables of the chat template, such as `enable_thinking: false`.
        plain_format: for tokenizers without a chat template: the text with {prompt} and {message}; wins over a
            chat template.
        temperature: of sampling; 0 takes the likeliest token.
        batch_size: most sequences in one pass of generation.
        generation_cache: keys and values of what is read and said: `dynamic` grows with every token; `static` has its
            last size from the start and stays with the model; `compiled` is static, and on a GPU transformers compiles
            the pass of a token into a graph, once for each size of batch.
        soft_prompts: a file of `framework optimize --optimizer soft_prompt` or of a training with `GBCModule`: soft
            prompts by agent and, of the latter, gates.
        adapters: a folder with a folder of each agent's LoRA adapter, in peft's format: a training's `best/adapters`.
        prompt_cache_mib: most memory, in MiB, for the prompts that attribution keeps as it has read them; 0 for none.
    """

    path: str
    device: str = "cpu"
    device_map: Literal["auto", "balanced", "sequential"] | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    weight_bits: Literal[4, 8] | None = None
    attention: str | None = None
    system_role: Literal["system", "user"] = "system"
    template_options: JsonDict = field(default_factory=JsonDict)
    plain_format: str | None = None
    temperature: float = 0.0
    batch_size: int = 32
    generation_cache: Literal["dynamic", "static", "compiled"] = "dynamic"
    soft_prompts: str | None = None
    adapters: str | None = None
    prompt_cache_mib: int = 512

    def __post_init__(self) -> None:
        if self.prompt_cache_mib < 0:
            raise ConfigError(f"prompt_cache_mib {self.prompt_cache_mib}", hint="use 0 or more")
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
        soft: soft prompts by agent, `soft hidden`: vectors that follow the agent's prompt (`agent_parameters.py`).
        gates: one value each, by the name of the message (`agent_parameters.py`).
        adapters: LoRA adapters by agent (`lora.py`).

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
        self.gates: dict[str, Gate] = {}
        self.adapters = Adapters(model)
        if not tokenizer.is_fast:
            hint = "use a folder with tokenizer.json"
            raise ConfigError(f"the tokenizer of {self.config.path} gives no offsets", hint=hint)
        if getattr(tokenizer, "chat_template", None) is None and self.config.plain_format is None:
            raise ConfigError(
                f"the tokenizer of {self.config.path or 'the model'} has no chat template",
                hint="use an instruction-tuned model, or set plain_format, such as '{prompt}\\n\\n{message}\\n'",
            )
        if self.config.generation_cache != "dynamic" and not keeps_keys_and_values(model):
            kind = self.config.generation_cache
            problem = f"generation_cache {kind} with {type(model).__name__}, whose layers keep other states"
            raise ConfigError(problem, hint="leave generation_cache out, which is dynamic")
        use_fast_layers(model)
        prompt_states(model).max_bytes = self.config.prompt_cache_mib * 2**20
        self._ends = end_tokens(model, tokenizer)
        self._mean_embedding: Embedding | None = None

    @classmethod
    def load(cls, config: LocalModelConfig) -> "LocalModel":
        """The model of a folder; nothing is downloaded and no code of the folder is run.

        Raises:
            ConfigError: no such folder, files that are missing or damaged, or another architecture.
        """
        if not Path(config.path).is_dir():
            raise ConfigError(f"{config.path} is not a folder", hint="give a folder made by save_pretrained")
        dtype: torch.dtype = getattr(torch, config.dtype)
        spread = Spread(config.device_map or (config.device if config.weight_bits else None), config.weight_bits)
        try:
            model, tokenizer = load_pretrained(config.path, dtype=dtype, attention=config.attention, spread=spread)
        except (OSError, ValueError, ImportError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(f"{config.path} holds no usable model ({reason})", hint="save it again") from error
        if spread == Spread():
            cast(nn.Module, model).to(config.device)
        loaded = cls(model, tokenizer, config)
        if config.soft_prompts is not None:
            loaded.soft, loaded.gates = load_soft_prompts(
                config.soft_prompts, device=config.device, hidden_size=hidden_size(model)
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
        return context_length(self.model)

    def encode(self, request: Request) -> EncodedPrompt:
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
        return EncodedPrompt(text=text, ids=ids, spans=offsets, blocks=found)

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

    def plain_tokens(self, text: str) -> tuple[int, ...]:
        """The tokens of a text by itself, without special tokens."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def reply(self, requests: Sequence[Request]) -> list[Reply | DataError]:
        """The answers to requests, in their order; batches of similar length, left-padded.

        A request that does not fit has its error in place of an answer.
        """
        encoded: dict[int, EncodedPrompt] = {}
        answers: dict[int, Reply | DataError] = {}
        for index, request in enumerate(requests):
            try:
                encoded[index] = self.encode(request)
            except DataError as error:
                answers[index] = error
        order = sorted(encoded, key=lambda index: (requests[index].max_new_tokens, len(encoded[index].ids)))
        while order:
            max_new_tokens = requests[order[0]].max_new_tokens
            most = order[: self.config.batch_size]
            same = [index for index in most if requests[index].max_new_tokens == max_new_tokens]
            order = order[len(same) :]
            seeds = [requests[index].seed for index in same]
            inputs = [encoded[index].ids for index in same]
            bound = [self.bind(requests[index].step, encoded[index].blocks, len(encoded[index].ids)) for index in same]
            stops = [requests[index].stop for index in same]
            outputs = self.generate(inputs, max_new_tokens=max_new_tokens, seeds=seeds, bound=bound, stops=stops)
            for index, output in zip(same, outputs, strict=True):
                answers[index] = self._reply(encoded[index], output, requests[index].stop)
        return [answers[index] for index in range(len(requests))]

    def recite(self, requests: Sequence[Request], outputs: Sequence[str]) -> list[Reply | DataError]:
        """The answers to requests if the model said these texts, each followed by the end token; errors as `reply`."""
        answers: list[Reply | DataError] = []
        for request, output in zip(requests, outputs, strict=True):
            try:
                answers.append(self._reply(self.encode(request), self.target_tokens(output)))
            except DataError as error:
                answers.append(error)
        return answers

    def target_tokens(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that the model should say, with the end token."""
        return (*self.plain_tokens(text), *([end] if isinstance(end := self.tokenizer.eos_token_id, int) else []))

    @torch.no_grad()
    def generate(
        self,
        inputs: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        seeds: Sequence[int],
        bound: Sequence[BoundParameters | None] = (),
        stops: Sequence[Sequence[str]] = (),
    ) -> list[tuple[int, ...]]:
        """New tokens after each input, up to and with the end token or those of a text that ends it, in one batch.

        Args:
            inputs: token ids, at least one each.
            max_new_tokens: bound.
            seeds: one for each input; unless greedy, its tokens are a function of input and seed alone.
            bound: each input's agent parameters, where some have any; by default none.
            stops: texts that end each answer, where some have any; by default none.
        """
        padding = self._ends[0] if self._ends else 0
        ids, mask = pad_left(inputs, padding, self.device)
        read = {"inputs": ids}
        bound = bound or [None] * len(inputs)
        if any(each is not None and each.changes_embeddings for each in bound):
            rows = [embeddings_of(self.model, tensor_on(self.device, row)) for row in inputs]
            rows = [row if each is None else each.apply(row) for row, each in zip(rows, bound, strict=True)]
            _, mask = pad_left([[0] * len(row) for row in rows], padding, self.device)
            read = {"inputs_embeds": pad_sequence(rows, batch_first=True, padding_side="left")}
        options = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self._ends or None,
            pad_token_id=padding,
            cache_implementation=None if self.config.generation_cache == "dynamic" else "static",
            disable_compile=self.config.generation_cache != "compiled",
        )
        noise = [GumbelNoise(seeds, self.config.temperature)] if self.config.temperature else []
        adapters = [None if each is None else each.adapter for each in bound]
        with plain_generation_config(self.model), active_adapters(adapters):
            # From embeddings, the new tokens come alone.
            num_read = ids.shape[1] if "inputs" in read else 0
            output = generated(
                self.model,
                **read,
                attention_mask=mask,
                generation_config=options,
                logits_processor=LogitsProcessorList(noise),
                stopping_criteria=[StopTexts(stops, self.decode, num_read=num_read)] if any(stops) else [],
            )
        rows = [until_end(ints(row), self._ends) for row in output[:, num_read:].cpu()]  # one copy of all
        return [until_stop(row, stop, self.decode) for row, stop in zip(rows, stops or [()] * len(rows), strict=True)]

    def soft_prompt(self, step: str) -> SoftPrompt | None:
        """The soft prompt of a step's agent; None where it has none."""
        return self.soft.get(step.partition("@")[0])

    def bind(self, step: str, blocks: Sequence[Block], length: int) -> BoundParameters | None:
        """The parameters of a step's agent, bound to an input; None where it reads as the plain model does.

        Args:
            step: name of the step.
            blocks: of the input.
            length: of the input, in tokens.
        """
        agent = step.partition("@")[0]
        soft, gated, adapter = self.soft_prompt(step), message_gates(step, blocks, self.gates), self.adapters.of(agent)
        if soft is None and not gated and adapter is None:
            return None
        return BoundParameters(
            agent=agent,
            position=soft_prompt_position(blocks),
            soft_prompt=soft,
            scale=gate_scale(gated, length, self.device) if gated else None,
            mean_embedding=self.mean_embedding() if gated else None,
            adapter=adapter,
        )

    def set_agent_parameters(self, agent_parameters: AgentParameters) -> None:
        """Other soft prompts, gates and adapters in place of all that are there."""
        self.soft, self.gates = dict(agent_parameters.soft), dict(agent_parameters.gates)
        self.adapters.assign(agent_parameters.adapters)

    @torch.no_grad()
    def mean_embedding(self) -> Float[Tensor, "hidden"]:
        """The mean of the vocabulary's embeddings, in float32: what gates mix with."""
        if self._mean_embedding is not None:
            return self._mean_embedding
        every = torch.arange(vocabulary_size(self.model), device=self.device)
        self._mean_embedding = found = embeddings_of(self.model, every).float().mean(dim=0)
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, without special tokens."""
        return decoded(self.tokenizer, ids)

    def _reply(self, encoded: EncodedPrompt, output: tuple[int, ...], stop: Sequence[str] = ()) -> Reply:
        text = self.decode(output)
        end = stop_in(text, stop)
        # Its tokens stay, as the end token does; they have no text.
        text = text[:end]
        prefixes = [self.decode(output[: stop + 1]) for stop in range(len(output))]
        return Reply(
            input_text=encoded.text,
            input_ids=encoded.ids,
            input_spans=encoded.spans,
            blocks=encoded.blocks,
            output=text,
            output_ids=output,
            output_spans=output_spans(prefixes, text),
            finish="stop" if end is not None or (output and output[-1] in self._ends) else "length",
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
            return rendered_chat(self.tokenizer, messages, self.config.template_options)
        except TemplateError as error:
            raise ConfigError(
                f"the chat template of {self.config.path or 'the model'} refuses the messages ({error})",
                hint="set system_role to user, or set plain_format",
            ) from None
