"""Secrets are found by the names and forms they have, and nothing else is touched."""

import pytest
import yaml

from framework.core.errors import ConfigError
from framework.tracking.secrets import (
    REMOVED,
    is_secret_name,
    refuse_removed,
    scrubbed,
    scrubbed_command,
    scrubbed_text,
    scrubbed_yaml,
)


@pytest.mark.parametrize(
    "name",
    ["token", "api_key", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "hfToken", "data.remote.password", "auth", "apiKey"],
)
def test_names_of_secrets(name: str):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["class_tokens", "num_tokens", "tokens_per_second", "label_key", "key", "author", "monkey", "model.width"]
)
def test_names_of_other_settings(name: str):
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://user:pa55@host/set?x=1", f"https://{REMOVED}@host/set?x=1"),
        ("s3://key:secret@bucket/a and git@github.com:a/b", f"s3://{REMOVED}@bucket/a and git@github.com:a/b"),
        ("get https://h/a?X-Amz-Signature=abc&part=2", f"get https://h/a?X-Amz-Signature={REMOVED}&part=2"),
        ("https://h/a?sig=abc%2B&token=t", f"https://h/a?sig={REMOVED}&token={REMOVED}"),
        ("Authorization: Bearer abcdefghij.k", f"Authorization: Bearer {REMOVED}"),
        ("id AKIAABCDEFGHIJKLMNOP in use", f"id {REMOVED} in use"),
        ("hf_" + "a" * 30, REMOVED),
        ("loss/total 2.5 at step 3, 64 tokens", "loss/total 2.5 at step 3, 64 tokens"),
        ("http://host:8080/path@2", "http://host:8080/path@2"),
    ],
)
def test_texts(text: str, clean: str):
    assert scrubbed_text(text) == clean


def test_the_environments_secrets_are_known_by_value(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_DATABASE_PASSWORD", "correct horse")
    monkeypatch.setenv("SHORT_TOKEN", "on")
    monkeypatch.setenv("HARMLESS", "battery staple")
    # The shell's working folder.
    monkeypatch.setenv("PWD", "/srv/runs")
    text = "correct horse battery staple on /srv/runs/data"
    assert scrubbed_text(text) == f"{REMOVED} battery staple on /srv/runs/data"


def test_settings():
    recipe = {
        "model": {"class_tokens": 4, "tokens": ["a"], "label_key": "class"},
        "data": {
            "train": {"https://me:secret@host/a": 1.0},
            "remote": {
                "storage_options": {
                    "key": "K",
                    "secret": "S",
                    "anon": False,
                    "endpoint_url": "http://me:pw@minio:9000",
                    "client_kwargs": {"headers": {"X-Anything": "H"}, "region_name": "eu"},
                }
            },
        },
        "logger": {"api_key": "A", "password": None},
    }
    assert scrubbed(recipe) == {
        "model": {"class_tokens": 4, "tokens": ["a"], "label_key": "class"},
        "data": {
            "train": {f"https://{REMOVED}@host/a": 1.0},
            "remote": {
                "storage_options": {
                    "key": REMOVED,
                    "secret": REMOVED,
                    "anon": False,
                    "endpoint_url": f"http://{REMOVED}@minio:9000",
                    "client_kwargs": {"headers": {"X-Anything": REMOVED}, "region_name": "eu"},
                }
            },
        },
        "logger": {"api_key": REMOVED, "password": None},
    }


def test_a_recipe_without_secrets_is_unchanged_to_the_letter():
    text = "a:   1 # one\nb: [x,  y]\n"
    assert scrubbed_yaml(text) == text
    assert yaml.safe_load(scrubbed_yaml("b: 1\na:\n  token: t\n")) == {"b": 1, "a": {"token": REMOVED}}


def test_commands():
    words = [
        *("framework", "fit", "--config", "a.yaml", "--x.api_key", "K", "--y.token=T", "--model.class_tokens", "4"),
        *("--data.remote.storage_options", "{key: K, secret: S}", "--data.remote.storage_options.anything=V"),
        *(
            "--data.remote",
            "{storage_options: {key: K}, stall_s: 3}",
            "--data.train",
            "https://u:p@h/a",
            "--flag",
            "-v",
        ),
    ]
    assert scrubbed_command(words) == [
        *("framework", "fit", "--config", "a.yaml", "--x.api_key", REMOVED, f"--y.token={REMOVED}"),
        *("--model.class_tokens", "4", "--data.remote.storage_options", REMOVED),
        f"--data.remote.storage_options.anything={REMOVED}",
        *("--data.remote", "{stall_s: 3, storage_options: {key: " + REMOVED + "}}"),
        *("--data.train", f"https://{REMOVED}@h/a", "--flag", "-v"),
    ]


def test_what_was_removed_must_be_given_again():
    refuse_removed({"a": {"b": "x"}, "c": [1, None]})
    with pytest.raises(ConfigError, match=r"data\.remote\.storage_options\.key was removed .* --data\.remote"):
        refuse_removed({"data": {"remote": {"storage_options": {"key": REMOVED}}}})
    with pytest.raises(ConfigError, match=r"data\.train was removed"):
        refuse_removed({"data": {"train": {f"https://{REMOVED}@h": 1.0}}})
