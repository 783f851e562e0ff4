"""The weights of the evidence: what is found again."""

from framework.gbc.attribution.culprits.diagnosis import WEIGHTS, probabilities
from framework.gbc.environments.realworld.weights import Known, fit_weights


def test_weights_that_tell_the_culprits():
    none = dict.fromkeys(WEIGHTS, 0.0)
    run = {"guilty": {**none, "made_up": 1.0}, "other": {**none, "right": 1.0}}
    known = [Known(group=str(number), features=run, culprits=("guilty",)) for number in range(4)]
    weights = fit_weights(known)
    assert weights["made_up"] > 0 > weights["right"]
    assert probabilities([run], ["guilty", "other"], weights)["guilty"] > 0.9
    # More shrinkage, less confidence; whose culprit did not run says nothing.
    absent = Known(group="x", features=run, culprits=("elsewhere",))
    assert fit_weights([*known, absent], shrinkage=1.0)["made_up"] < weights["made_up"]
