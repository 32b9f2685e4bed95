"""Which of a worker's variables a stage is given."""

from flows.stage import confined

LOGINS = {
    "PREFECT_API_AUTH_STRING": "remint:secret",
    "REMINT_CATALOGUE": "postgresql://catalogue:secret@postgres/catalogue",
    "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://prefect:secret@postgres/prefect",
    "REMINT_WEBHOOK": "https://hooks.example/secret",
    "REMINT_WEBHOOK_TOKEN": "secret",
    "PGPASSWORD": "secret",
    "GITHUB_TOKEN": "secret",
    "SSH_AUTH_SOCK": "/run/agent",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "http.extraHeader",
    "GIT_CONFIG_VALUE_0": "Authorization: secret",
}
S3 = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "secret"}
MLFLOW = {"MLFLOW_TRACKING_USERNAME": "worker", "MLFLOW_TRACKING_PASSWORD": "secret"}
ELSE = {"PATH": "/bin", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "AWS_ENDPOINT_URL": "http://s3:8333"}
HERE = {"REMINT_CHECKPOINTS": "/kept", "REMINT_ARRIVED": "", "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}


def given(**places):
    return confined.variables({**LOGINS, **S3, **MLFLOW, **ELSE, **HERE, **places})


def test_a_stage_that_keeps_everything_here_is_given_no_login():
    assert given() == {**ELSE, **HERE, "MLFLOW_TRACKING_USERNAME": "worker"}  # a name alone opens nothing


def test_one_that_keeps_files_in_s3_is_given_its_keys_and_nothing_else():
    for place in ("REMINT_CHECKPOINTS", "REMINT_ARRIVED", "REMINT_PICTURES"):
        assert set(given(**{place: "s3://remint-artifacts/here"})) - set(given()) - {place} == set(S3)


def test_one_that_is_tracked_by_a_server_is_given_its_login_and_nothing_else():
    tracked = given(MLFLOW_TRACKING_URI="http://mlflow:5000")
    assert set(tracked) - set(given()) == {"MLFLOW_TRACKING_PASSWORD"}
