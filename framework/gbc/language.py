"""Small causal language models trained on episodes: what agents of a world of one's own need (ours).

An episode is {prompt, message, answer}. The model reads prompt and message as `LocalModel` renders them and learns the
answer with the end token; what it reads has no loss.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch import LightningModule
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

from framework.data.batch import EpisodeBatch
from framework.data.module import ShardDataModule
from framework.errors import CheckpointError, ConfigError, DataError
from framework.tags import NO_DECAY, tag
from framework.training.checkpoint.read import find_checkpoint, read_state, read_tensors
from framework.training.optimizer import OptimizerConfig, build_optimizer, build_schedule

CHECKPOINT_KEY = "language_model"
_IGNORED = -100
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
    """

    vocabulary_size: int
    family: Literal["qwen3", "llama"] = "qwen3"
    hidden_size: int = 128
    intermediate_size: int = 384
    num_layers: int = 4
    num_heads: int = 4
    max_tokens: int = 512

    def __post_init__(self) -> None:
        if self.hidden_size % (2 * self.num_heads):
            mend = f"use a multiple of {2 * self.num_heads}"
            raise ConfigError(f"hidden_size {self.hidden_size} with {self.num_heads} heads", mend=mend)


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
        "attention_dropout": 0.0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.family == "llama":
            return LlamaForCausalLM(LlamaConfig(**settings))
        return Qwen3ForCausalLM(Qwen3Config(**settings))


class LanguageModelModule(LightningModule):
    """Trains a causal language model on the answers of episodes.

    Args:
        tokenizer: folder of a fast tokenizer with a chat template.
        architecture: the model.
        optimizer: AdamW and its schedule.
        seed: of the initial weights.
    """

    sample_unit = "task"
    model: PreTrainedModel

    def __init__(
        self,
        *,
        tokenizer: str,
        architecture: LanguageModelConfig,
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 - frozen
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.tokenizer_path, self.architecture = tokenizer, architecture
        self.optimizer_config, self.seed = optimizer, seed

    def configure_model(self) -> None:
        if hasattr(self, "model"):
            return
        self.model = make_language_model(self.architecture, seed=self.seed)
        for parameter in self.model.parameters():
            if parameter.dim() < 2:
                tag(parameter, NO_DECAY)

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, ShardDataModule) and data.kind != "episodes":
            raise ConfigError(f"data.kind is {data.kind}", mend="train a language model on episodes")
        self.tokenizer = load_tokenizer(self.tokenizer_path)
        if len(self.tokenizer) > self.architecture.vocabulary_size:
            problem = f"{self.tokenizer_path} has {len(self.tokenizer)} tokens"
            mend = "set model.architecture.vocabulary_size to as many or more"
            raise ConfigError(f"{problem}, the model {self.architecture.vocabulary_size}", mend=mend)

    def training_step(self, batch: EpisodeBatch, batch_idx: int) -> Tensor:
        parts = [self._losses(ids, targets) for ids, targets in self._encode(batch)]
        loss = torch.cat([losses for losses, _ in parts]).mean()
        self.log("loss/cross_entropy_nats", loss.detach(), prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: EpisodeBatch, batch_idx: int) -> None:
        parts = [self._losses(ids, targets) for ids, targets in self._encode(batch)]
        right = torch.cat([right for _, right in parts]).float().mean()
        loss = torch.cat([losses for losses, _ in parts]).mean()
        self.log("validation/cross_entropy_nats", loss, batch_size=len(batch))
        self.log("accuracy/validation", right, prog_bar=True, batch_size=len(batch))

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.optimizer_config)
        schedule = build_schedule(optimizer, self.optimizer_config, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CHECKPOINT_KEY] = asdict(self.architecture) | {"tokenizer": self.tokenizer_path}

    def _encode(self, batch: EpisodeBatch) -> Iterator[tuple[Int[Tensor, "batch token"], Int[Tensor, "batch token"]]]:
        """Token ids and targets of a batch in parts of similar length: little is computed for padding."""
        pairs = sorted((encode_episode(self.tokenizer, episode) for episode in batch.episodes), key=_length)
        size = -(-len(pairs) // _PARTS)
        for start in range(0, len(pairs), size):
            part = pairs[start : start + size]
            width = _length(part[-1])
            if width > self.architecture.max_tokens:
                problem = f"an episode of {width} tokens, the model reads {self.architecture.max_tokens}"
                raise DataError(problem, mend="raise model.architecture.max_tokens, or leave long episodes out")
            # Padding on the right is read by nobody: no mask is needed.
            ids = torch.zeros(len(part), width, dtype=torch.long)
            targets = torch.full((len(part), width), _IGNORED)
            for row, (read, said) in enumerate(part):
                ids[row, : len(read) + len(said)] = torch.tensor([*read, *said])
                targets[row, len(read) : len(read) + len(said)] = torch.tensor(said)
            yield ids.to(self.device), targets.to(self.device)

    def _losses(
        self, ids: Int[Tensor, "batch token"], targets: Int[Tensor, "batch token"]
    ) -> tuple[Float[Tensor, "answer"], Bool[Tensor, "batch"]]:
        """-log p of each token of the answers, and whether each whole answer is the likeliest."""
        hidden = self.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        kept = targets[:, 1:] != _IGNORED
        wanted = targets[:, 1:][kept]
        head = self.model.get_output_embeddings()
        assert head is not None
        logits = head(hidden[:, :-1][kept]).float()
        return F.cross_entropy(logits, wanted, reduction="none"), whole_answers(logits.argmax(dim=-1) == wanted, kept)


def _length(pair: tuple[list[int], list[int]]) -> int:
    return len(pair[0]) + len(pair[1])


def encode_episode(tokenizer: PreTrainedTokenizerBase, episode: Any) -> tuple[list[int], list[int]]:
    """Token ids of what is read and of the answer with the end token.

    Raises:
        DataError: an episode without the three texts.
    """
    try:
        texts = [episode[name] for name in ("prompt", "message", "answer")]
    except (KeyError, TypeError):
        texts = []
    if len(texts) != 3 or not all(isinstance(text, str) for text in texts):
        mend = "give each a prompt, a message and an answer"
        raise DataError(f"the episode {str(episode)[:60]!r} lacks texts", mend=mend)
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


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a folder.

    Raises:
        ConfigError: no such folder, or one without a chat template or an end token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{path} holds no tokenizer ({reason})", mend="give its folder") from None
    if tokenizer.chat_template is None or tokenizer.eos_token_id is None:
        problem = f"the tokenizer of {path} lacks a chat template or an end token"
        raise ConfigError(problem, mend="set both and save it again")
    return tokenizer


def export_language_model(
    checkpoint: str | Path,
    dest: str | Path,
    *,
    tokenizer: str | Path | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
) -> None:
    """Writes a run's model as the folder that `LocalModel.load` reads: weights as safetensors, config, tokenizer.

    Args:
        checkpoint: of `LanguageModelModule`, or the run's folder for the newest.
        dest: the folder; files in it are replaced.
        tokenizer: its folder; by default the one that the run used.
        dtype: of the weights.

    Raises:
        CheckpointError: a checkpoint that is missing or of another module.
    """
    found = find_checkpoint(checkpoint)
    settings = read_state(found).get(CHECKPOINT_KEY)
    if settings is None:
        mend = "give a checkpoint of framework.gbc.language.LanguageModelModule"
        raise CheckpointError(f"{found} holds no language model", mend=mend)
    path = settings.pop("tokenizer")
    loaded = load_tokenizer(tokenizer or path)
    model = make_language_model(LanguageModelConfig(**settings), seed=0)
    # Tied: the embeddings are stored once or twice, and equal.
    missing, unknown = model.load_state_dict(read_tensors(found, "model."), strict=False)
    if unknown or set(missing) - {"lm_head.weight"}:
        problem = f"{found} does not fit its own description ({', '.join([*missing, *unknown][:3])})"
        raise CheckpointError(problem, mend="use a checkpoint that is whole")
    model.tie_weights()
    model.config.pad_token_id, model.config.eos_token_id = loaded.pad_token_id, loaded.eos_token_id
    model.generation_config.pad_token_id = loaded.pad_token_id
    model.generation_config.eos_token_id = loaded.eos_token_id
    model.to(getattr(torch, dtype)).save_pretrained(dest)
    loaded.save_pretrained(dest)
