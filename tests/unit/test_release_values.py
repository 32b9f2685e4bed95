"""What a release is made of, decided from values alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from data.core.params import UserError
from flows.catalogue.registered import Registered
from flows.pipeline.families import Model
from flows.release import pointers
from flows.release.gates.decision import Decision, Rule
from flows.release.outcome import Release
from flows.release.pointers import Aliases, Member, Pointer, aliases, changes
from flows.release.promote import FamilyOutcome, check_fit, judged
from flows.release.rollback import target
from flows.release.stores import Finding
from flows.show import status, table


def member(name, version):
    return Member(name, version, f"{version:064x}", f"{name}@v{version}.0.0", "b" * 64)


def log_of(*releases, family="images"):
    """A log whose releases have these versions: {"tokenizer": 1, "maskgit": 1}, ..."""
    log = []
    for number, versions in enumerate(releases, 1):
        members = tuple(member(name, version) for name, version in sorted(versions.items()))
        previous = pointers.digest(log[-1]) if log else ""
        about = {"run": f"r{number}", "commit": "c" * 40, "who": "Ada <ada@example.org>", "why": ""}
        log.append(Pointer(family, number, members, at="2026-01-01T00:00:00+00:00", previous=previous, **about))
    return log


ONE, TWO = {"maskgit": 1, "tokenizer": 1}, {"maskgit": 2, "tokenizer": 1}


def test_what_stands_is_the_newest_release_and_before_it_the_last_other_weights():
    found = aliases(log_of(ONE, TWO, TWO))
    assert found["maskgit"] == Aliases(member("maskgit", 2), member("maskgit", 1))
    assert found["tokenizer"] == Aliases(member("tokenizer", 1), None)
    assert aliases([]) == {}


def test_a_model_that_left_its_family_has_no_version_in_production():
    assert aliases(log_of(ONE, {"tokenizer": 1}))["maskgit"] == Aliases(None, member("maskgit", 1))


def test_without_a_number_the_last_release_of_other_weights_is_restored():
    assert target("images", log_of(ONE, TWO, TWO), None).number == 1
    assert target("images", log_of(ONE, TWO, ONE), None).number == 2
    assert target("images", log_of(ONE, TWO), 1).number == 1


@pytest.mark.parametrize(
    ("releases", "number", "says"),
    [
        ((), None, "nothing of images is in production"),
        ((ONE, ONE), None, "never released with other models"),
        ((ONE, TWO), 3, "no release #3; it has #1 to #2"),
        ((ONE, TWO), 0, "no release #0"),
        ((ONE, TWO), 2, "images #2 is what stands in production: there is nothing to roll back"),
    ],
)
def test_a_rollback_that_cannot_be_says_what_there_is(releases, number, says):
    with pytest.raises(UserError, match=says):
        target("images", log_of(*releases), number)


def registered(name, version, bound=None, parents=None):
    model = Model(name, Path("m"), "", name, "images", name, name, bound_to=bound)
    return Registered(model, version, f"{version:064x}", parents or {}, {}, "run")


def test_a_generator_of_another_tokenizer_is_refused_with_both_digests():
    fits = [registered("tokenizer", 1), registered("maskgit", 2, "tokenizer", {"tokenizer": f"{1:064x}"})]
    check_fit(fits)
    with pytest.raises(UserError, match=rf"trained with tokenizer {1:064x}, and the release has tokenizer {3:064x}"):
        check_fit([registered("tokenizer", 3), fits[1]])


PASSED = [Decision("tokenizer", 2, True, "replaces v1"), Decision("maskgit", 2, True, "replaces v1")]


def verdict(decisions, own=None, base=None):
    own = own or [registered("tokenizer", 2), registered("maskgit", 2)]
    wanted = [registered("tokenizer", 1).model, registered("maskgit", 1).model]
    return judged("images", wanted, own, decisions, base)


def test_a_family_is_released_only_if_all_of_it_passes():
    refused = replace(PASSED[1], promoted=False, reason="gfwd <= 1 failed: 2", rules=(Rule("gfwd <= 1", False, 2, 1),))
    waits = replace(PASSED[0], promoted=False, reason="waits for approval", rules=(Rule("approval", False, "", ""),))
    assert verdict(PASSED) is None
    assert verdict([PASSED[0], refused]).state == "refused"
    assert verdict([waits, refused]).state == "refused"
    assert verdict([waits, PASSED[1]]).state == "waiting"
    assert "maskgit v2: gfwd <= 1 failed: 2" in verdict([PASSED[0], refused]).reason


def test_a_run_without_one_of_the_models_releases_none():
    outcome = verdict(PASSED[:1], own=[registered("tokenizer", 2)])
    assert (outcome.state, outcome.reason) == ("refused", "the run has no maskgit, and a family is released whole")


def test_the_very_models_that_stand_are_not_released_again():
    base = log_of({"maskgit": 2, "tokenizer": 2})[0]
    assert verdict(PASSED, base=base) is None  # the gates saw that something is different, if only a configuration
    outcome = verdict([replace(one, promoted=False, unchanged=True) for one in PASSED], base=base)
    assert outcome.state == "standing"
    assert "released by Ada <ada@example.org> from run r1" in outcome.reason


def test_the_history_shows_what_each_release_changed():
    log = log_of(ONE, TWO)
    log.append(replace(log[0], number=3, previous=pointers.digest(log[1]), restores=1, why="wires break"))
    assert status.history(log).splitlines() == [
        "release  at                   by   run  models",
        "#3       2026-01-01 00:00:00  Ada  r1   maskgit v2 -> v1, tokenizer v1  restores #1; wires break",
        "#2       2026-01-01 00:00:00  Ada  r2   maskgit v1 -> v2, tokenizer v1",
        "#1       2026-01-01 00:00:00  Ada  r1   maskgit v1, tokenizer v1",
    ]
    assert changes(log[0], log_of({"tokenizer": 1})[0]) == "tokenizer v1, without maskgit"


def test_the_end_of_a_run_says_release_models_and_alarms():
    stands, made = log_of(ONE), log_of(ONE, TWO)[1]
    finding = Finding("MLflow", "maskgit@production", "v1", "v2")
    images = FamilyOutcome("images", "released", "released, maskgit v1 -> v2", made, (finding,))
    depth = FamilyOutcome("depth", "refused", "not released: depth-small v2: bad", replace(stands[0], family="depth"))
    decisions = (Decision("maskgit", 2, True, "replaces v1", family="images"),)
    release = Release(decisions=decisions, outcomes=(depth, images), alarms=("tokens is not deterministic",))
    lines = table.release_lines(release)
    assert lines == [
        "depth: not released: depth-small v2: bad; depth #1 stands",
        "images #2: released, maskgit v1 -> v2",
        "    MLflow: maskgit@production is v1, should be v2",
        "    maskgit v2: passed, replaces v1",
        "ALARM: tokens is not deterministic",
    ]
