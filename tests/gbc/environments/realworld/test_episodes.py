"""Faulty systems and their failures, by a model whose answers are known."""

from framework.gbc.environments.realworld.episodes import healthy_share, plant_faults


def test_failures_are_of_tasks_that_the_healthy_system_solves(system, analogy):
    assert healthy_share(system, analogy) == 2 / 3
    word, writer, both = plant_faults(system, analogy)
    assert [each.kind for each in (word, writer, both)] == ["wrong_example", "missing_field", "double"]
    assert [failure.trace.task["user"] for failure in word.failures] == ["b", "c"]
    assert {failure.culprits for failure in word.failures} == {("word",)}
    assert {failure.culprits for failure in both.failures} == {("word", "writer")}
    assert word.failures[0].trace.output == " word=z"
    assert word.successes == ()
    assert word.nodes == ("word", "writer")
    assert len(plant_faults(system, analogy, most_failures=1, num_doubles=0)[0].failures) == 1
