"""A stage's digests depend on what went in and came out, and on nothing else that dvc.lock says."""

import copy

import pytest

from flows.pipeline.lock import input_digest, output_digest

ENTRY = {
    "cmd": "python -m train",
    "deps": [
        {"path": "a.py", "hash": "md5", "md5": "a1", "size": 10},
        {"path": "data", "hash": "md5", "md5": "d1.dir", "size": 10, "nfiles": 2},
    ],
    "params": {"params.yaml": {"lr": 0.1, "seed": 1}},
    "outs": [{"path": "model", "hash": "md5", "md5": "m1.dir", "size": 5, "nfiles": 2}],
}


def changed(**parts) -> dict:
    return {**copy.deepcopy(ENTRY), **parts}


@pytest.mark.parametrize(
    "same",
    [
        changed(deps=list(reversed(ENTRY["deps"]))),
        changed(params={"params.yaml": {"seed": 1, "lr": 0.1}}),
        changed(deps=[{k: v for k, v in dep.items() if k not in ("size", "nfiles")} for dep in ENTRY["deps"]]),
        changed(outs=[]),
    ],
)
def test_order_sizes_and_outputs_do_not_change_the_digest_of_the_inputs(same):
    assert input_digest(same) == input_digest(ENTRY)


@pytest.mark.parametrize(
    "other",
    [
        changed(cmd="python -m train --more"),
        changed(params={"params.yaml": {"lr": 0.1, "seed": 2}}),
        changed(params={}),
        changed(deps=ENTRY["deps"][:1]),
        changed(deps=[{**ENTRY["deps"][0], "md5": "a2"}, ENTRY["deps"][1]]),
        changed(deps=[{**ENTRY["deps"][0], "path": "b.py"}, ENTRY["deps"][1]]),
    ],
)
def test_another_command_parameter_or_dep_is_another_input(other):
    assert input_digest(other) != input_digest(ENTRY)


def test_the_digest_of_the_outputs_is_of_their_contents():
    out = ENTRY["outs"][0]
    assert output_digest(changed(cmd="x", outs=[{**out, "size": 7}])) == output_digest(ENTRY)
    assert output_digest(changed(outs=[{**out, "md5": "m2.dir"}])) != output_digest(ENTRY)


def test_a_stage_without_deps_claims_nothing_about_its_input():
    assert input_digest(changed(deps=[])) == ""
