"""Where the keys of a YAML text stand, and no expansion of aliases."""

from framework.core.settings.yaml_keys import Key, read_keys


def test_every_key_has_its_line_and_says_what_it_holds():
    assert read_keys("a: 1\nb: {c: , d: [{e: x}]}\n") == {
        ("a",): Key(line=1, holds="value", text="1"),
        ("b",): Key(line=2, holds="mapping"),
        ("b", "c"): Key(line=2, holds="null"),
        ("b", "d"): Key(line=2, holds="list", text="a list"),
        ("b", "d", "0", "e"): Key(line=2, holds="value", text="x"),
    }
    assert read_keys("") == {}


def test_aliases_are_read_once():
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
    assert len(read_keys(f"a0: &a0 {{x: 1}}\n{levels}")) == 13
    assert ("a", "b") in read_keys("a: &x\n  b: *x\n")
