"""What a search may try: as it is written, as it is refused, and what is looked at where nothing is said."""

import math

import pytest

import unifocal
from unifocal.lab.comparison import check_losses
from unifocal.lab.errors import LabError
from unifocal.lab.tuning.space import Options, Range, parse_space
from unifocal.lab.tuning.usual import USUAL


def test_values_ranges_scales_and_choices():
    space = parse_space(
        "unified-focal:gamma=0.05..0.9:lam=0.3, dice, focal:gamma=0.1..5:log:alpha=[0.25,0.75], "
        "adaptive-focal:order=paper/scalar:size=1e-1..1e1"
    )
    unified, dice, focal, adaptive = space.candidates
    assert unified.free == {"gamma": Range(0.05, 0.9)} and unified.base.arguments == {"lam": 0.3}
    assert unified.defaults == {"gamma": 0.5}
    assert not dice.free and dice.loss({}).label == "dice"
    assert focal.free == {"gamma": Range(0.1, 5, log=True)} and focal.base.label == "focal:alpha=[0.25,0.75]"
    assert adaptive.free == {"order": Options(("paper", "scalar")), "size": Range(0.1, 10)}
    assert parse_space(str(space)) == space


def test_the_defaults_are_written_as_people_write_them():
    """So that they are one training with any other of that loss."""
    [candidate] = parse_space("generalised-focal:gamma=0.1..0.9:delta=0.3..0.9").candidates
    assert candidate.defaults == {"gamma": 0.2, "delta": 0.6}  # of the name, not of the class
    assert candidate.loss({"gamma": 0.2, "delta": 0.6}).label == "generalised-focal"
    assert candidate.loss({"gamma": 0.3, "delta": 0.6}).label == "generalised-focal:delta=0.6:gamma=0.3"


def test_defaults_may_lie_outside():
    assert not parse_space("tversky:delta=0.8..0.9").candidates[0].holds_defaults
    assert parse_space("tversky:delta=0.6..0.9").candidates[0].holds_defaults


def test_values_have_three_digits_and_stay_inside():
    assert Range(0.1, 0.9).taken(0.123456) == 0.123
    assert Range(0.1, 0.99996).taken(0.99995) == 0.99996  # 1.0 by its digits
    assert Range(0.12345, 1).taken(0.12346) == 0.12345


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("unified-focl:gamma=0.1..0.9", "unified-focal"),
        ("tversky:dleta=0.1..0.9", "delta"),
        ("tversky:delta=0.9..0.1", "the lower number first"),
        ("tversky:delta=0.5..0.5", "the lower number first"),
        ("tversky:delta=0.1..much", "two numbers"),
        ("tversky:delta=0.1..inf", "two numbers"),
        ("focal:gamma=0..5:log", "above 0"),
        ("tversky:delta", "argument=value"),
        ("tversky:delta=", "argument=value"),
        ("tversky:log", "argument=value"),
        ("tversky:delta=0.1..0.4:delta=0.6..0.9", "twice"),
        ("tversky:delta=0.7/0.7", "two different values"),
        ("tversky:delta=0.6/0.7:log", "two different values"),
        ("tversky,tversky", "twice"),
        ("dice", "something to choose from"),
        ("tversky:delta=0.7", "something to choose from"),
        (" , ", "got none"),
    ],
)
def test_what_cannot_be_is_refused(text, says):
    with pytest.raises(LabError, match=says):
        parse_space(text)


@pytest.mark.parametrize("text", ["tversky:delta=0.1..1", "unified-focal:gamma=0.1..0.9:delta=0..0.5"])
def test_corners_that_the_loss_refuses(text):
    with pytest.raises(LabError, match="must lie in"):
        check_losses(list(parse_space(text).corners()), classes=2)


def test_every_loss_has_usual_ranges_that_hold_its_defaults_and_that_it_allows():
    assert set(USUAL) == set(unifocal.available())
    for name, ranges in USUAL.items():
        [candidate, _] = parse_space(f"{name},{'jaccard' if name != 'jaccard' else 'dice'}").candidates
        assert set(candidate.free) == set(ranges)
        assert candidate.holds_defaults, name
        check_losses(list(parse_space(f"{name},{'jaccard' if name != 'jaccard' else 'dice'}").corners()), classes=3)
        for domain in candidate.free.values():
            assert isinstance(domain, Range)
            if domain.log:  # 1 is near the middle of each
                assert abs(math.log(domain.low * domain.high)) < 0.5
