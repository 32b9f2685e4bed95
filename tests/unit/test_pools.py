"""Which work pools can run stages, as their type and base job template say."""

import re

import pytest

from flows.workers import pools

KUBERNETES = {
    "job_configuration": {"job_manifest": {"image": "{{ image }}", "args": ["python", "-m", "prefect.engine"]}},
    "variables": {"properties": {}},
}
LOOSE = {"job_configuration": {"command": "{{ command }}"}, "variables": {"properties": {"command": {}, "env": {}}}}


@pytest.mark.parametrize(
    ("kind", "template", "words"),
    [
        ("prefect:managed", {}, "of type 'prefect:managed'; make one of type process"),
        ("process", LOOSE, "lets a flow run choose command, env; remint deploy"),
        (
            "process",
            {"job_configuration": {}, "variables": {}},
            "runs nothing, not python -m prefect.engine; remint deploy",
        ),
        ("kubernetes", KUBERNETES, "does not name infra/docker/worker.sh, .*gpu-job-template.json"),
        ("docker", LOOSE, "take them out of the template"),
    ],
)
def test_a_pool_that_cannot_run_stages_is_named_with_the_next_step(kind, template, words):
    assert re.search(words, pools.unfit(kind, template))


def test_our_own_template_fits():
    assert pools.unfit("process", pools.JOB_TEMPLATE) == ""
