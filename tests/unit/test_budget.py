"""A budget as people write it, and what it lets start, keep on and end."""

import pytest

from data.core.params import UserError
from flows.stage.budget import Account, Budget, parse, spent
from flows.stage.spending import Spending, Usage, duration, total


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("2h", {"machine": 7200}),
        ("1h30m", {"machine": 5400}),
        (" 90s ", {"machine": 90}),
        ("0.5h cpu", {"cpu": 1800}),
        ("30m gpu", {"gpu": 1800}),
        ("2h, 30m gpu,1d cpu", {"machine": 7200, "gpu": 1800, "cpu": 86400}),
        ("2h machine", {"machine": 7200}),
    ],
)
def test_a_budget_is_an_amount_of_time_of_machines_processors_or_gpus(text, limits):
    assert parse(text).limits == limits


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is no amount of time"),
        ("2", "'2' is no amount of time"),
        ("2 h", "'2 h' is no amount of time"),
        ("-2h", "'-2h' is no amount of time"),
        ("2h,", "'' is no amount of time"),
        ("gpu 2h", "'gpu 2h' is no amount of time"),
        ("2hours", "'2hours' is no amount of time"),
        ("1e3h", "'1e3h' is no amount of time"),
        ("nan h", "'nan h' is no amount of time"),
        ("2h gpus", "of what is 'gpus'; did you mean 'gpu'?"),
        ("2h, 30m", "limits machines twice"),
        ("0h gpu", "with 0h gpu nothing can run"),
    ],
)
def test_what_is_no_budget_is_named_with_examples(text, says):
    with pytest.raises(UserError) as error:
        parse(text)
    assert f"--budget '{text}'" in str(error.value)
    assert says in str(error.value)
    assert "write '2h', '1h30m'" in str(error.value)


def account(text: str, estimates: dict[str, Usage], **used: Usage) -> Account:
    spending = Spending()
    for stage, usage in used.items():
        spending.attempt(stage, lambda usage=usage: usage)
    return Account(parse(text), estimates, spending, on_gpus=["train"])


def test_a_stage_starts_if_what_it_took_the_last_time_still_fits():
    estimates = {"train": Usage(seconds=3600), "render": Usage(seconds=600)}
    used = {"photos": Usage(seconds=3600)}
    assert account("2h", estimates, **used).refuses("train", []) == ""
    assert account("119m", estimates, **used).refuses("render", []) == ""
    why = account("119m", estimates, **used).refuses("train", [])
    assert why == "it is likely to take 60 min, after 60 min of 1 h 59 min of machines"


def test_what_works_beside_it_counts_with_what_it_is_still_likely_to_take():
    estimates = {"train": Usage(seconds=3600), "render": Usage(seconds=1800)}
    used = {"train": Usage(seconds=600)}
    assert account("90m", estimates, **used).refuses("render", ["train"]) == ""
    assert account("89m", estimates, **used).refuses("render", ["train"])
    assert account("89m", estimates, **used).refuses("render", []) == ""  # it has ended, and took 10 minutes
    longer = {"train": Usage(seconds=4000)}  # than the last time
    assert account("98m", estimates, **longer).refuses("render", ["train"]) == ""
    assert account("96m", estimates, **longer).refuses("render", ["train"])


def test_a_stage_that_never_ran_starts_as_long_as_anything_is_left():
    assert account("1h", {}, photos=Usage(seconds=3500)).refuses("train", []) == ""
    assert "are spent" in account("1h", {}, photos=Usage(seconds=3595)).refuses("train", [])


def test_what_works_ends_shortly_before_the_limit():
    assert account("1h", {}, train=Usage(seconds=3589)).too_much(["train"]) == []
    assert account("1h", {}, train=Usage(seconds=3591)).too_much(["train"]) == ["train"]
    assert account("1h", {}, train=Usage(seconds=3579)).too_much(["train", "render"]) == []  # both need their time
    assert account("1h", {}, train=Usage(seconds=3581)).too_much(["train", "render"]) == ["train", "render"]
    assert account("20s cpu", {}, train=Usage(seconds=900, cpu_seconds=18)).too_much(["train"]) == []
    assert account("20s cpu", {}, train=Usage(seconds=900, cpu_seconds=19.1)).too_much(["train"]) == ["train"]


def test_the_nearer_the_limit_the_more_often_it_is_looked_at():
    assert account("2h", {}).pace == 1.0
    assert account("2h, 6s gpu", {}).pace == pytest.approx(0.3)
    assert Account(Budget(), {}, Spending()).pace is None


def test_a_limit_of_gpu_time_stops_only_stages_that_hold_gpus():
    over = account("10m gpu", {"train": Usage(gpu_seconds=60)}, train=Usage(seconds=999, gpu_seconds=600))
    assert over.too_much(["train", "render"]) == ["train"]
    assert over.refuses("train", [])
    assert over.refuses("render", ["train"]) == ""


def test_without_a_budget_nothing_is_refused_or_ended():
    spending = Spending()
    spending.attempt("train", lambda: Usage(1e9, 1e9, 1e9))
    free = Account(Budget(), {"train": Usage(seconds=1e9)}, spending)
    assert free.refuses("train", ["train"]) == ""
    assert free.too_much(["train"]) == []


def test_every_attempt_at_a_stage_counts_and_a_living_one_as_far_as_it_is():
    spending = Spending()
    assert spending.of("train") is None
    spending.attempt("train", lambda: Usage(10, 20, 5, bytes_in=100, peak_memory=1000))
    now = Usage(1, peak_memory=3000)
    spending.attempt("train", lambda: now)
    spending.attempt("photos", lambda: Usage(2, bytes_out=7, peak_memory=500))
    assert spending.of("train") == Usage(11, 20, 5, bytes_in=100, peak_memory=3000)
    now = Usage(4, peak_memory=3000)
    assert spending.all() == Usage(16, 20, 5, bytes_in=100, bytes_out=7, peak_memory=3000)
    assert total([]) == Usage()


def test_what_was_spent_is_said_for_each_limit():
    used = Usage(6720, 9000, 1680)
    assert spent(parse("2h, 30m gpu"), used) == "1 h 52 min of 2 h of machines and 28 min of 30 min of GPUs"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (4.56, "4.6 s"), (99.94, "99.9 s"), (751, "12 min 31 s"), (3600, "60 min"), (6000, "1 h 40 min"),
     (5999.7, "1 h 40 min"), (7200, "2 h"), (7229, "2 h"), (358199, "99 h 30 min"),
     (360000, "4 d 04 h"), (864000, "10 d")],
)  # fmt: skip
def test_a_duration_has_two_units_at_most(seconds, words):
    assert duration(seconds) == words
