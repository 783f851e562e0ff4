"""Training a language model on episodes by the command, and the folder that it is exported to."""

from pathlib import Path

import pytest
import torch

from framework.core.errors import CheckpointError, ConfigError, DataError
from framework.data.loading.batch import EpisodeBatch
from framework.gbc.environments.microworld.tokenizer import make_tokenizer
from framework.gbc.environments.microworld.training_examples import draw_examples
from framework.language_model.chat_tokenizer import END
from framework.language_model.export import export_language_model
from framework.language_model.module import (
    LanguageModelConfig,
    LanguageModelModule,
    encode_episode,
    load_tokenizer,
    make_language_model,
    whole_answers,
)
from framework.training.checkpoint.read import find_checkpoint, read_tensors


@pytest.mark.slow
def test_what_is_no_language_model(run: Path, tmp_path: Path):
    with pytest.raises(CheckpointError):
        export_language_model(tmp_path, tmp_path / "out")
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match="hidden_size 100 with 4 heads"):
        LanguageModelConfig(vocabulary_size=8, hidden_size=100)


def test_episodes_are_rendered_as_agents_read_them():
    tokenizer = make_tokenizer()
    (example,) = draw_examples("a", 1)
    read, said = encode_episode(tokenizer, example)
    expected = f"<system> {example['prompt']} <user> {example['message']} <assistant>".split()
    assert tokenizer.convert_ids_to_tokens(read) == expected
    assert tokenizer.convert_ids_to_tokens(said) == [*example["answer"].split(), END]
    with pytest.raises(DataError, match="lacks texts"):
        encode_episode(tokenizer, {"prompt": "a", "message": "b"})


def test_whole_answers_by_hand():
    kept = torch.tensor([[False, True, True], [True, False, True], [False, False, True]])
    right = torch.tensor([True, True, True, False, True])
    assert whole_answers(right, kept).tolist() == [True, False, True]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_models_are_functions_of_their_seeds(family):
    config = LanguageModelConfig(vocabulary_size=20, family=family, hidden_size=16, num_layers=1)
    first, again, other = (make_language_model(config, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_mixup_pairs_are_mixed_by_shares():
    examples = [example for example in draw_examples("a", 40) if "twin" in example][:3]
    tokenizer = make_tokenizer()
    config = LanguageModelConfig(vocabulary_size=len(tokenizer), hidden_size=16, num_layers=1, num_heads=2)
    module = LanguageModelModule(tokenizer="", architecture=config)
    module.tokenizer = tokenizer
    module.configure_model()
    batch = EpisodeBatch(episodes=tuple(examples), indices=torch.tensor([4, 5, 6]), epoch=0)
    embed = module.model.get_input_embeddings()
    for part, plain in zip(module._encode(batch, mixed=True), module._encode(batch, mixed=False), strict=True):
        assert ((part.shares > 0) & (part.shares < 1)).all()
        assert (plain.shares == 1).all()
        assert torch.equal(plain.ids, plain.pairs)
        # A hand-made mixture of the first example's two readings.
        share, width = part.shares[0], int(part.said[0].nonzero()[-1]) + 1
        read = share * embed(part.ids[0, :width]) + (1 - share) * embed(part.pairs[0, :width])
        chances = module.model(inputs_embeds=read[None]).logits[0, :-1].log_softmax(dim=-1)
        said = part.said[0, 1:width]
        wanted, other = (ids[0, 1:width][said][:, None] for ids in (part.ids, part.pairs))
        expected = -share * chances[said].gather(1, wanted) - (1 - share) * chances[said].gather(1, other)
        count = int(said.sum())
        torch.testing.assert_close(module._losses(part)[0][:count], expected[:, 0], rtol=1e-4, atol=1e-5)
    again = next(module._encode(batch, mixed=True))
    assert torch.equal(again.shares, next(module._encode(batch, mixed=True)).shares)
    longer = {**examples[0], "twin": {**examples[0]["twin"], "answer": examples[0]["answer"] + " none"}}
    with pytest.raises(DataError, match="the mixup pair of"):
        list(module._encode(EpisodeBatch(episodes=(longer,), indices=torch.tensor([0]), epoch=0), mixed=True))


def test_dropout_is_for_training_alone():
    tokenizer = make_tokenizer()
    config = LanguageModelConfig(vocabulary_size=len(tokenizer), hidden_size=16, num_layers=1, num_heads=2, dropout=0.5)
    module = LanguageModelModule(tokenizer="", architecture=config)
    module.tokenizer = tokenizer
    module.configure_model()
    batch = EpisodeBatch(episodes=tuple(draw_examples("a", 3)), indices=torch.arange(3), epoch=0)
    (part, *_) = module._encode(batch, mixed=False)
    assert not torch.equal(module._losses(part)[0], module._losses(part)[0])
    module.eval()
    assert torch.equal(module._losses(part)[0], module._losses(part)[0])
    with pytest.raises(ConfigError, match=r"dropout 1\.0"):
        LanguageModelConfig(vocabulary_size=8, dropout=1.0)


def test_a_model_begins_with_the_weights_of_another(run: Path, tmp_path: Path):
    export_language_model(run / "run", tmp_path / "model")
    config = LanguageModelConfig(
        vocabulary_size=128, family="llama", hidden_size=16, intermediate_size=256, num_layers=4, num_heads=4
    )
    module = LanguageModelModule(tokenizer="", architecture=config, initial_weights=str(tmp_path / "model"))
    module.configure_model()
    trained = read_tensors(find_checkpoint(run / "run"), "model.")
    for name, value in module.model.state_dict().items():
        assert torch.equal(value, trained[name])
    for folder, problem in ((str(tmp_path), "holds no weights"), (str(tmp_path / "model"), "holds no weights")):
        other = LanguageModelConfig(vocabulary_size=128, hidden_size=32, num_heads=4)
        module = LanguageModelModule(tokenizer="", architecture=other, initial_weights=folder)
        with pytest.raises(ConfigError, match=problem):
            module.configure_model()
