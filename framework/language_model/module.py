"""Small causal language models trained on episodes: what agents of a world of one's own need (ours).

An episode is {prompt, message, answer}. The model reads prompt and message as `LocalModel` renders them and learns the
answer with the end token; what it reads has no loss.

An episode may have a mixup pair (`twin` in its JSON), another such example of as many tokens. In training the two are
mixed (Zhang et al. 2018, arXiv 1710.09412, here of tokens): the model reads a share of each embedding and learns each
answer with its share. Then its gradients tell what another token would change, which those of a model that has only
ever read whole tokens do not.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from framework.core.errors import ConfigError, DataError
from framework.core.param_tags import NO_DECAY, tag
from framework.core.random.seeding import seed_of
from framework.core.serialization import to_json
from framework.data.loading.batch import EpisodeBatch
from framework.data.module import ShardDataModule
from framework.training.callbacks.step_metrics import log_step
from framework.training.length import total_steps
from framework.training.optimizer import ClippingModule, OptimizerConfig, build_optimizer, build_schedule, steps_itself

CHECKPOINT_KEY = "language_model"
_PARTS = 2
"""Passes in which a batch is computed, each of answers of similar length."""


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """What rebuilds the model, in plain types.

    Args:
        vocabulary_size: tokens, at least those of the tokenizer.
        family: the architecture in transformers.
        hidden_size: width, a multiple of `num_heads`.
        intermediate_size: width of the feed-forward layers.
        num_layers: decoder layers.
        num_heads: attention heads, each with keys and values of its own.
        max_tokens: context length.
        dropout: share of the embeddings' values and of the attention weights that are left out in training.
    """

    vocabulary_size: int
    family: Literal["qwen3", "llama"] = "qwen3"
    hidden_size: int = 128
    intermediate_size: int = 384
    num_layers: int = 4
    num_heads: int = 4
    max_tokens: int = 512
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout}", hint="use 0 or more, and less than 1")
        if self.hidden_size % (2 * self.num_heads):
            hint = f"use a multiple of {2 * self.num_heads}"
            raise ConfigError(f"hidden_size {self.hidden_size} with {self.num_heads} heads", hint=hint)


def make_language_model(config: LanguageModelConfig, *, seed: int) -> PreTrainedModel:
    """A model with random weights, a function of the seed; its input and output embeddings are the same."""
    settings = {
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads,
        "head_dim": config.hidden_size // config.num_heads,
        "max_position_embeddings": config.max_tokens,
        "tie_word_embeddings": True,
        # The usual 0.02 is for widths of thousands.
        "initializer_range": config.hidden_size**-0.5,
        "attention_dropout": config.dropout,
    }
    # On the CPU whatever a trainer's default device is: generators of others give other numbers. A plan draws none.
    device = "meta" if torch.get_default_device().type == "meta" else "cpu"
    with torch.device(device), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if config.family == "llama":
            return LlamaForCausalLM(LlamaConfig(**settings))
        return Qwen3ForCausalLM(Qwen3Config(**settings))


class LanguageModelModule(ClippingModule):
    """Trains a causal language model on the answers of episodes.

    Args:
        tokenizer: folder of a fast tokenizer with a chat template.
        architecture: the model.
        optimizer: with its schedule.
        seed: of the initial weights and of the shares of mixup pairs.
        mixup: whether episodes are mixed with their pairs (mixup).
        initial_weights: folder of an exported model to begin with; must stay in place for a resume.
    """

    model: PreTrainedModel

    def __init__(
        self,
        *,
        tokenizer: str,
        architecture: LanguageModelConfig,
        optimizer: OptimizerConfig = OptimizerConfig(),
        seed: int = 0,
        mixup: bool = True,
        initial_weights: str | None = None,
    ) -> None:
        super().__init__()
        self.mixup, self.initial_weights = mixup, initial_weights
        self.tokenizer_path, self.architecture = tokenizer, architecture
        self.optimizer_config, self.seed = optimizer, seed

    def configure_model(self) -> None:
        if hasattr(self, "model"):
            return
        self.model = make_language_model(self.architecture, seed=self.seed)
        if self.initial_weights is not None:
            load_weights(self.model, self.initial_weights)
        embeddings = self.model.get_input_embeddings().weight
        for parameter in self.model.parameters():
            if parameter.dim() < 2 or parameter is embeddings:
                tag(parameter, NO_DECAY)

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, ShardDataModule) and data.kind != "episodes":
            raise ConfigError(f"data.kind is {data.kind}", hint="train a language model on episodes")
        self.tokenizer = load_tokenizer(self.tokenizer_path)
        if len(self.tokenizer) > self.architecture.vocabulary_size:
            problem = f"{self.tokenizer_path} has {len(self.tokenizer)} tokens"
            hint = "set model.architecture.vocabulary_size to as many or more"
            raise ConfigError(f"{problem}, the model {self.architecture.vocabulary_size}", hint=hint)

    def training_step(self, batch: EpisodeBatch, batch_idx: int) -> Float[Tensor, ""]:
        losses = torch.cat([self._losses(part)[0] for part in self._encode(batch, mixed=self.mixup)])
        loss = losses.mean()
        log_step(self, {"loss/cross_entropy_nats": loss.detach()})
        return loss

    def validation_step(self, batch: EpisodeBatch, batch_idx: int) -> None:
        parts = [self._losses(part) for part in self._encode(batch, mixed=False)]
        right = torch.cat([right for _, right in parts]).float().mean()
        loss = torch.cat([losses for losses, _ in parts]).mean()
        self.log("validation/cross_entropy_nats", loss, batch_size=len(batch))
        self.log("accuracy/validation", right, prog_bar=True, batch_size=len(batch))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = build_optimizer(self.model, self.optimizer_config, fused=steps_itself(self.trainer))
        schedule = build_schedule(optimizer, self.optimizer_config, total_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        checkpoint[CHECKPOINT_KEY] = to_json(self.architecture) | {"tokenizer": self.tokenizer_path}

    def _encode(self, batch: EpisodeBatch, *, mixed: bool) -> Iterator["_Part"]:
        """A batch in parts of similar length: little is computed for padding."""
        samples = zip(batch.episodes, batch.sample_passes(), batch.indices.tolist(), strict=True)
        examples = [self._example(episode, (passed, index) if mixed else None) for episode, passed, index in samples]
        examples.sort(key=lambda example: len(example.ids))
        size = -(-len(examples) // _PARTS)
        for start in range(0, len(examples), size):
            part = examples[start : start + size]
            width = len(part[-1].ids)
            if width > self.architecture.max_tokens:
                problem = f"an episode of {width} tokens, the model reads {self.architecture.max_tokens}"
                raise DataError(problem, hint="raise model.architecture.max_tokens, or leave long episodes out")
            # Padding on the right is read by nobody: no mask is needed.
            ids, pairs = torch.zeros(2, len(part), width, dtype=torch.long)
            said = torch.zeros(len(part), width, dtype=torch.bool)
            for row, example in enumerate(part):
                ids[row, : len(example.ids)] = torch.tensor(example.ids)
                pairs[row, : len(example.ids)] = torch.tensor(example.pair)
                said[row, example.read : len(example.ids)] = True
            shares = torch.tensor([example.share for example in part])
            yield _Part(*(tensor.to(self.device) for tensor in (ids, pairs, said, shares)))

    def _example(self, episode: Any, sample: tuple[int, int] | None) -> "_Example":
        read, answer = encode_episode(self.tokenizer, episode)
        ids = [*read, *answer]
        pair = episode.get("twin") if sample is not None else None
        if pair is None:
            return _Example(ids, ids, len(read), 1.0)
        other, said = encode_episode(self.tokenizer, pair)
        if (len(other), len(said)) != (len(read), len(answer)):
            problem = f"the mixup pair of {str(episode)[:60]!r} has {len(other)} + {len(said)} tokens"
            raise DataError(problem, hint=f"make it as long as the episode, {len(read)} + {len(answer)}")
        return _Example(
            ids, [*other, *said], len(read), random.Random(seed_of("twin", self.seed, *sample or ())).random()
        )

    def _losses(self, part: "_Part") -> tuple[Float[Tensor, "answer"], Bool[Tensor, "batch"]]:
        """-log p of each token of the answers, and whether each whole answer is the likeliest."""
        embed = self.model.get_input_embeddings()
        shares = part.shares[:, None, None]
        embeddings = shares * embed(part.ids) + (1 - shares) * embed(part.pairs)
        embeddings = F.dropout(embeddings, self.architecture.dropout, self.training)
        hidden = self.model.get_decoder()(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        kept = part.said[:, 1:]
        head = self.model.get_output_embeddings()
        assert head is not None
        logits = head(hidden[:, :-1][kept]).float()
        wanted, others = part.ids[:, 1:][kept], part.pairs[:, 1:][kept]
        weights = part.shares[:, None].expand_as(kept)[kept]
        losses = weights * F.cross_entropy(logits, wanted, reduction="none")
        losses = losses + (1 - weights) * F.cross_entropy(logits, others, reduction="none")
        return losses, whole_answers(logits.argmax(dim=-1) == wanted, kept)


class _Example(NamedTuple):
    """Token ids of an example and of its mixup pair, how many are read, and the example's share."""

    ids: list[int]
    pair: list[int]
    read: int
    share: float


class _Part(NamedTuple):
    """Some examples of a batch, padded on the right."""

    ids: Int[Tensor, "batch token"]
    pairs: Int[Tensor, "batch token"]
    said: Bool[Tensor, "batch token"]
    shares: Float[Tensor, "batch"]


def encode_episode(tokenizer: PreTrainedTokenizerBase, episode: object) -> tuple[list[int], list[int]]:
    """Token ids of what is read and of the answer with the end token.

    Raises:
        DataError: an episode without the three texts.
    """
    given = episode if isinstance(episode, Mapping) else {}
    texts = [text for name in ("prompt", "message", "answer") if isinstance(text := given.get(name), str)]
    if len(texts) != 3:
        hint = "give each a prompt, a message and an answer"
        raise DataError(f"the episode {str(episode)[:60]!r} lacks texts", hint=hint)
    roles = zip(("system", "user"), texts, strict=False)
    messages = [{"role": role, "content": text} for role, text in roles if text]
    read = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert isinstance(read, str)
    end = tokenizer.eos_token_id
    assert isinstance(end, int)
    return _ids(tokenizer, read), [*_ids(tokenizer, texts[2]), end]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert isinstance(ids, list)
    return ids


def whole_answers(right: Bool[Tensor, "answer"], kept: Bool[Tensor, "batch token"]) -> Bool[Tensor, "batch"]:
    """Whether all tokens of each row's answer are right, given those of all answers row after row.

    Then greedy generation gives the answer too: it reads the same tokens up to the first wrong one.
    """
    grid = torch.ones_like(kept)
    grid[kept] = right
    return grid.all(dim=1)


def load_weights(model: PreTrainedModel, folder: str | Path) -> None:
    """Fills a model with the weights of an exported one.

    Raises:
        ConfigError: no such folder, or weights of another shape.
    """
    try:
        # Tied: the head's are the embeddings'.
        missing, unknown = model.load_state_dict(load_file(Path(folder) / "model.safetensors"), strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        hint = "give the folder of an exported model of the same architecture"
        raise ConfigError(f"{folder} holds no weights for this model ({reason})", hint=hint) from None
    if unknown or set(missing) - {"lm_head.weight"}:
        problem = f"{folder} has other weights ({', '.join([*missing, *unknown][:3])})"
        raise ConfigError(problem, hint="give the folder of an exported model of the same architecture")


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a folder.

    Raises:
        ConfigError: no such folder, or one without a chat template or an end token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{path} holds no tokenizer ({reason})", hint="give its folder") from None
    if tokenizer.chat_template is None or tokenizer.eos_token_id is None:
        problem = f"the tokenizer of {path} lacks a chat template or an end token"
        raise ConfigError(problem, hint="set both and save it again")
    return tokenizer
