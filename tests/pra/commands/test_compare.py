import json
from dataclasses import replace

import pytest

from framework.cli.main import main
from framework.core.errors import ConfigError
from framework.evaluation.features import PixelFeatures
from framework.pra.commands.compare import compare, match_parameters, num_parameters
from framework.pra.network.config import VARIANTS, PRAConfig
from framework.testing.processes.forked import run_warm


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_gets_the_methods_parameters_within_two_percent(variant):
    base = PRAConfig(image_size=16, patch_size=4, num_classes=10, width=64, depth=2, num_heads=4, head_width=64)
    goal = num_parameters(base)
    matched = match_parameters(replace(base, variant=variant), goal)
    assert num_parameters(matched) == pytest.approx(goal, rel=0.02)
    assert replace(matched, head_width=base.head_width) == replace(base, variant=variant)


@pytest.mark.slow
def test_rows_are_trained_and_measured_and_kept(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("framework.pra.commands.compare.subprocess.run", run_warm)
    out = tmp_path / "compare"
    rows = ["--variants", "[low_dim,pra]", "--guidance", "[1,2]", "--num", "6", "--steps", "2", "--svm_accuracy"]
    main(["compare", str(recipe), str(out), "--features", "PixelFeatures", *rows])
    table = (out / "table.md").read_text().splitlines()
    assert len(table) == 4
    assert "| SVM accuracy, guidance 1 | SVM accuracy, guidance 2 | rollout gap |" in table[0]
    assert table[3].startswith("| `pra` |")
    measured = json.loads((out / "table.json").read_text())
    assert [row["variant"] for row in measured] == ["low_dim", "pra"]
    assert measured[1]["guidance 1"]["frechet_distance/pixels"] > 0
    assert "rollout_gap/ratio" in measured[1]["guidance 1"]
    assert 0 <= measured[1]["guidance 2"]["svm_accuracy/samples"] <= 1
    before = (out / "pra/checkpoints/step=00000004/manifest.json").read_bytes()
    main(["compare", str(recipe), str(out), "--features", "PixelFeatures", "--variants", "[pra]", "--num", "6"])
    assert (out / "pra/checkpoints/step=00000004/manifest.json").read_bytes() == before


def test_a_recipe_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text("trainer: {max_steps: 1}")
    with pytest.raises(ConfigError, match=r"other\.yaml is not the recipe"):
        compare(str(path), str(tmp_path / "out"), features=PixelFeatures())
