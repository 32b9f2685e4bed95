"""Version tags as GTO counts them."""

from flows.release.tags import newest_assignment, next_assignment, next_version

TAGS = ["tokenizer@v1.0.0", "tokenizer@v9.0.0", "tokenizer@v10.0.0", "tokenizer-big@v20.0.0", "run/r1", "v3.0.0"]
STAGES = ["tokenizer#production#1", "tokenizer#staging#2", "tokenizer#production#11", "maskgit#production#30"]


def test_a_model_starts_at_version_one():
    assert next_version("maskgit", TAGS) == "maskgit@v1.0.0"


def test_versions_count_up_by_number_not_by_text():
    assert next_version("tokenizer", TAGS) == "tokenizer@v11.0.0"


def test_assignments_count_through_all_stages_of_a_model():
    assert next_assignment("tokenizer", "production", STAGES) == "tokenizer#production#12"
    assert next_assignment("depth-small", "production", STAGES) == "depth-small#production#1"


def test_the_newest_assignment_has_the_highest_number():
    assert newest_assignment("tokenizer", "production", STAGES) == "tokenizer#production#11"
    assert newest_assignment("tokenizer", "shadow", STAGES) is None
