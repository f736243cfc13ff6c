"""fac.settings: mappings become dataclasses, and all that is wrong is said at once, by the names of keys."""

from dataclasses import dataclass

import pytest

from fac.errors import FacError
from fac.settings import Problems, SettingsError, checked, typed


@dataclass(frozen=True)
class Settings:
    rank: int
    rate: float = 0.1
    mode: str = "lora"
    ratio: float | None = None
    seeds: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if self.mode not in ("lora", "head"):
            raise FacError(f"mode={self.mode} will not do: a training is lora or head.")


def sentences(values, positive=("rank",)):
    with pytest.raises(SettingsError) as failure:
        typed(Settings, values, "tasks.x.train", positive)
    return failure.value.sentences


def test_what_is_right_becomes_the_dataclass():
    made = typed(Settings, {"rank": 2, "seeds": [1, 2], "ratio": None}, "train", ("rank",))
    assert made == Settings(2, seeds=(1, 2))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rnk": 2, "rank": 1}, "tasks.x.train.rnk is no setting: did you mean rank."),
        ({}, "tasks.x.train.rank is missing: give it a value."),
        ({"rank": "x"}, "tasks.x.train.rank='x' will not do: input should be a valid integer, unable to parse string "
         "as an integer."),
        ({"rank": 0}, "tasks.x.train.rank=0 will not do: it must be above 0."),
        ({"rank": "???"}, "tasks.x.train.rank is not set: give it on the command line, tasks.x.train.rank=VALUE."),
        ({"rank": 1, "mode": "x"}, "tasks.x.train.mode=x will not do: a training is lora or head."),
        ({"rank": 1, "seeds": [1, "a"]}, "tasks.x.train.seeds.1='a' will not do: input should be a valid integer, "
         "unable to parse string as an integer."),
    ],
)  # fmt: skip
def test_each_fault_is_a_sentence_that_names_its_key(values, said):
    assert sentences(values) == (said,)


def test_all_faults_are_said_at_once():
    said = sentences({"rank": 0, "rate": "fast", "modes": "x", "ratio": "???"})
    assert [sentence.split("=")[0].split(" ")[0] for sentence in said] == [
        f"tasks.x.train.{key}" for key in ("modes", "ratio", "rank", "rate")
    ]


def test_one_fault_is_its_sentence_and_several_are_counted():
    assert str(SettingsError(["a will not do."])) == "a will not do."
    assert str(SettingsError(["a.", "b.", "a."])) == "2 settings will not do:\n  a.\n  b."


def test_problems_are_collected_and_the_code_goes_on():
    problems = Problems()
    problems.check()
    with problems.collected():
        raise FacError("one.")
    with problems.collected():
        typed(Settings, {"rank": 0, "x": 1}, "train", ("rank",))
    problems.add("four.")
    with pytest.raises(SettingsError) as failure:
        problems.check()
    assert [sentence[:8] for sentence in failure.value.sentences] == ["one.", "train.x ", "train.ra", "four."]
    with problems.collected(), pytest.raises(ZeroDivisionError):  # other failures are no settings
        raise ZeroDivisionError


def test_a_sentence_may_stand_in_place_of_another():
    problems = Problems()
    problems.add("a cannot be resolved.", instead_of="a is not set.")
    problems.add("a is not set.")
    problems.add("b is not set.")
    with pytest.raises(SettingsError) as failure:
        problems.check()
    assert failure.value.sentences == ("a cannot be resolved.", "b is not set.")


def test_one_value_is_checked():
    assert checked(tuple[int, ...], [1, 2], "seeds") == (1, 2)
    for value, said in (("x", "seeds='x' will not do"), ("???", "seeds is not set")):
        with pytest.raises(SettingsError, match=said):
            checked(tuple[int, ...], value, "seeds")
