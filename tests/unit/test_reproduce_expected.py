"""What is said of the bytes before a reproduction starts, and of the cause where they differ."""

from dataclasses import replace

import pytest

from flows.pipeline.environment import Environment
from flows.pipeline.graph import Stage
from flows.reproduce import compare

AMD = Environment(
    "a" * 64, "CPython 3.11.7", "2.13.0", "Linux", "x86_64", "AuthenticAMD family 25 model 17", "avx512",
    features=("avx512_bf16", "avx512f"),
)  # fmt: skip
INTEL = replace(AMD, cpu="GenuineIntel family 6 model 143", features=("amx_bf16", "avx512_bf16", "avx512f"))
OTHER_TORCH = replace(AMD, torch="2.14.0")
DATA, TRAINING = Stage("scenes", "cmd", params=("seed", "scenes")), Stage("proxy", "cmd", params=("portable", "proxy"))
STAGES = (DATA, TRAINING)


def everywhere(environment):
    return {stage.name: environment for stage in STAGES}


def portable(environment):
    return replace(environment, portable=True)


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        (AMD, AMD, "the same bytes are expected: the same packages; x86_64 AuthenticAMD avx512 bf16, as then"),
        (portable(AMD), portable(INTEL), "the same bytes are expected: the same packages; portable: true, as then"),
        (AMD, OTHER_TORCH, "other bytes are likely from scenes on: torch: 2.13.0 then, 2.14.0 now"),
        (
            AMD,
            INTEL,
            "other bytes are likely from proxy on: cpu: AuthenticAMD family 25 model 17 then, GenuineIntel family 6 "
            "model 143 now; processor features: none then, amx_bf16 now; only what was trained with portable: true has "
            "the same on every processor",
        ),
    ],
)
def test_before_it_starts_it_is_said_what_to_expect_and_why(then, now, words):
    assert compare.beforehand(STAGES, everywhere(then), everywhere(now)) == words


def test_of_a_run_that_did_not_note_its_environment_nothing_is_promised():
    assert compare.beforehand(STAGES, {}, everywhere(AMD)).startswith("nothing can be said")


@pytest.mark.parametrize(
    ("stage", "now", "words"),
    [
        ("proxy", INTEL, "the processor explains it (cpu: "),
        ("proxy", OTHER_TORCH, "the processor does not explain it, but this may: torch: 2.13.0 then, 2.14.0 now"),
        (
            "proxy",
            AMD,
            "the processor does not explain it, nor does anything else of the environment: the stage is not ",
        ),
        (
            "scenes",
            INTEL,
            "the processor does not explain it, nor does anything else of the environment: the stage is ",
        ),
    ],
)
def test_afterwards_it_is_said_whether_the_processor_explains_other_bytes(stage, now, words):
    assert compare.explanation(stage, STAGES, everywhere(AMD), everywhere(now)).startswith(words)


def test_the_processor_explains_any_stage_of_a_graph_from_before_portable():
    old = (Stage("scenes", "cmd", params=("seed",)), Stage("proxy", "cmd", params=("seed", "proxy")))
    said = compare.explanation("scenes", old, everywhere(AMD), everywhere(INTEL))
    assert said.startswith("the processor explains it")


def rendered(then, now):
    """What is expected of scenes that Mitsuba makes, and of a training on them."""
    stages = (
        Stage("scenes", "python -m data.scenes.render", params=("seed",)),
        Stage("proxy", "x", params=("portable",)),
    )
    return compare.beforehand(stages, *({one.name: place for one in stages} for place in (then, now)))


def test_scenes_are_expected_to_differ_on_another_model_of_processor_whatever_is_portable():
    words = "other bytes are likely from scenes on: cpu: AuthenticAMD family 25 model 17 then, GenuineIntel"
    said = rendered(portable(AMD), portable(INTEL))
    assert said.startswith(words)
    assert said.endswith("; --from inputs starts from the scenes that were recorded")
    assert rendered(portable(AMD), portable(AMD)).startswith("the same bytes are expected")
