"""A trained language model as a folder of its own, which agents' models are loaded from."""

from pathlib import Path
from typing import Literal

import torch

from framework.core.errors import CheckpointError, ConfigError
from framework.core.io import check_output_folder
from framework.core.serialization import from_json
from framework.language_model.module import CHECKPOINT_KEY, LanguageModelConfig, load_tokenizer, make_language_model
from framework.tracking.data_identity import note_data
from framework.training.checkpoint.layout import Manifest
from framework.training.checkpoint.read import find_checkpoint, read_state, read_tensors
from framework.training.export import ExportOptions


def write_export(checkpoint: Path, target: Path, options: ExportOptions) -> str:
    """What `framework export` writes of a language model; returns what to tell the user.

    Args:
        checkpoint: a verified one.
        target: the folder.
        options: whether an earlier export may be replaced; the others do not matter.

    Raises:
        ConfigError: the folder is there, and is not to be replaced.
    """
    if target.exists() and not options.overwrite:
        raise ConfigError(f"{target} exists", hint="choose another folder, or use --overwrite")
    check_output_folder(target)
    export_language_model(checkpoint, target)
    return f"language model of step {Manifest.read(checkpoint).step} in {target}"


def export_language_model(
    checkpoint: str | Path,
    dest: str | Path,
    *,
    tokenizer: str | Path | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
) -> None:
    """Writes a run's model as the folder that `LocalModel.load` reads: weights as safetensors, config, tokenizer.

    Beside them `data.json` says what it was trained on, where the checkpoint does.

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
        hint = "give a checkpoint of framework.language_model.module.LanguageModelModule"
        raise CheckpointError(f"{found} holds no language model", hint=hint)
    path = settings.pop("tokenizer")
    loaded = load_tokenizer(tokenizer or path)
    model = make_language_model(from_json(LanguageModelConfig, settings, allow_missing=True), seed=0)
    # Tied: the embeddings are stored once or twice, and equal.
    missing, unknown = model.load_state_dict(read_tensors(found, "model."), strict=False)
    if unknown or set(missing) - {"lm_head.weight"}:
        problem = f"{found} does not fit its own description ({', '.join([*missing, *unknown][:3])})"
        raise CheckpointError(problem, hint="use a checkpoint that is whole")
    model.tie_weights()
    model.config.pad_token_id, model.config.eos_token_id = loaded.pad_token_id, loaded.eos_token_id
    model.generation_config.pad_token_id = loaded.pad_token_id
    model.generation_config.eos_token_id = loaded.eos_token_id
    model.to(getattr(torch, dtype)).save_pretrained(dest)
    loaded.save_pretrained(dest)
    if (data := Manifest.read(found).data) is not None:
        note_data(Path(dest), data)
