"""The stack for real, without containers: every service's command, from the settings that the containers read."""

import base64
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import psycopg
import pytest
from botocore.exceptions import ClientError

from data.core.params import UserError
from flows.catalogue.schema import REVISION
from flows.server import connect
from flows.storage.s3 import S3Bucket
from infra.stack import access, compose, online, processes, s3, secrets
from models.tracking import server as mlflow_server
from models.tracking import training_run

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="session")
def ports(stack):
    return json.loads((stack.state / "ports.json").read_text())


@pytest.fixture(scope="session")
def values(stack):
    return json.loads((stack.secrets / secrets.VALUES).read_text())


def use(stack, user):
    """The variables that a person sources."""
    lines = stack.use(user).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def as_(stack, monkeypatch):
    """Makes this process one of the stack's users."""

    def become(user, **changes):
        for name, value in (use(stack, user) | changes).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    return become


def answer(address, login=""):
    headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def test_every_service_of_the_file_runs(stack):
    wanted = set(compose.read(stack.root, stack.secrets, {})) - {"postgres", "s3", "bootstrap", "worker-gpu"}
    found = processes.read(stack.state / "processes.json")
    assert {process.service for process in found} == wanted
    assert [process.name for process in found if not process.alive] == []


def test_mlflow_wants_a_login_for_everything_but_its_health(ports, values):
    address = f"http://127.0.0.1:{ports['mlflow']}"
    assert answer(f"{address}/health") == 200
    for path in ("/", "/api/2.0/mlflow/experiments/search?max_results=1", "/api/2.0/mlflow-artifacts/artifacts"):
        assert answer(address + path) == 401
    query = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert answer(address + query, "reader:wrong") == 401
    assert answer(address + query, f"reader:{values['mlflow.reader']}") == 200


def test_mlflow_answers_only_to_the_names_it_is_told(ports, values):
    login = base64.b64encode(f"admin:{values['mlflow.admin']}".encode()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{ports['mlflow']}/api/2.0/mlflow/experiments/search?max_results=1",
        headers={"Host": "elsewhere.example", "Authorization": f"Basic {login}"},
    )
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=20)


def test_prefect_wants_a_login_for_everything_but_its_health(ports, values):
    address = f"http://127.0.0.1:{ports['prefect']}/api"
    assert answer(f"{address}/health") == 200
    assert answer(f"{address}/admin/version") == 401
    assert answer(f"{address}/admin/version", "remint:wrong") == 401
    assert answer(f"{address}/admin/version", f"remint:{values['prefect.server']}") == 200


def s3_of(ports, values, name):
    return s3.client(f"http://127.0.0.1:{ports['s3']}", (values[f"s3.{name}.key"], values[f"s3.{name}.secret"]))


def may(call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return False
    return True


@pytest.mark.parametrize("user", [user for user in access.USERS if user != "photographer"])
def test_s3_lets_each_user_do_what_the_table_says_and_no_more(stack, ports, values, user):
    mine, admin = s3_of(ports, values, user), s3_of(ports, values, access.ADMIN)
    for bucket in access.BUCKETS:
        right = access.USERS[user].get(bucket)
        admin.put_object(Bucket=bucket, Key="there", Body=b"1")
        assert may(mine.list_objects_v2, Bucket=bucket) == (right is not None)
        assert may(mine.get_object, Bucket=bucket, Key="there") == (right is not None)
        assert may(mine.put_object, Bucket=bucket, Key="mine", Body=b"1") == (right == "write")
        assert may(mine.delete_object, Bucket=bucket, Key="there") == (right == "write")
        assert not may(mine.delete_bucket_policy, Bucket=bucket)
    assert not may(mine.create_bucket, Bucket=f"of-{user}")


def test_a_photographer_may_put_photographs_where_they_arrive_and_nothing_else(as_, ports, values):
    as_("photographer")
    mine, admin = s3_of(ports, values, "photographer"), s3_of(ports, values, access.ADMIN)
    bucket, prefix = os.environ["REMINT_INCOMING"].removeprefix("s3://").split("/")
    assert f"{bucket}/{prefix}" == access.INCOMING
    mine.put_object(Bucket=bucket, Key=f"{prefix}/summer/beach.jpg", Body=b"jpeg")
    big = mine.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/big.tiff")  # as tools do above some megabytes
    part = {"Bucket": bucket, "Key": f"{prefix}/big.tiff", "UploadId": big["UploadId"]}
    tag = mine.upload_part(**part, PartNumber=1, Body=b"tiff")["ETag"]
    mine.complete_multipart_upload(**part, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]})
    keys = {entry["Key"] for entry in mine.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]}
    assert {f"{prefix}/summer/beach.jpg", f"{prefix}/big.tiff"} <= keys
    admin.put_object(Bucket=bucket, Key="elsewhere", Body=b"1")
    refused = [
        (mine.put_object, {"Bucket": bucket, "Key": "elsewhere", "Body": b"2"}),
        (mine.put_object, {"Bucket": bucket, "Key": f"{prefix}-of-others/x.jpg", "Body": b"2"}),
        (mine.put_object, {"Bucket": access.PRODUCTION, "Key": "releases/images/000001.json", "Body": b"{}"}),
        (mine.get_object, {"Bucket": bucket, "Key": "elsewhere"}),
        (mine.delete_object, {"Bucket": bucket, "Key": f"{prefix}/summer/beach.jpg"}),
        (mine.list_objects_v2, {"Bucket": bucket}),
        (mine.list_objects_v2, {"Bucket": access.ARTIFACTS}),
        (mine.delete_bucket_policy, {"Bucket": bucket}),
    ]
    assert [call for call, given in refused if may(call, **given)] == []
    assert (
        s3_of(ports, values, "releaser").get_object(Bucket=bucket, Key=f"{prefix}/big.tiff")["Body"].read() == b"tiff"
    )


def test_a_worker_cannot_release_and_a_reader_cannot_write_as_the_commands_see_it(as_):
    as_("worker")
    with pytest.raises(UserError, match="AccessDenied"):
        S3Bucket(access.PRODUCTION, "releases").create("images/000001.json", b"{}")
    as_("releaser")
    S3Bucket(access.PRODUCTION, "trial").create("a.json", b"{}")
    as_("reader")
    assert S3Bucket(access.PRODUCTION, "trial").read("a.json") == b"{}"
    with pytest.raises(UserError, match="AccessDenied"):
        S3Bucket(access.PRODUCTION, "trial").create("b.json", b"{}")


def test_a_wrong_s3_key_is_one_line_that_names_the_variable(as_):
    as_("worker", AWS_SECRET_ACCESS_KEY="wrong")
    with pytest.raises(UserError, match=r"SignatureDoesNotMatch.*AWS_ACCESS_KEY_ID") as error:
        S3Bucket(access.ARTIFACTS, "dvc").list("")
    assert "\n" not in str(error.value)


def test_postgres_has_a_user_for_each_database_who_sees_no_other(ports, values):
    for name in secrets.DATABASES:
        for database in secrets.DATABASES:
            reach = f"host=127.0.0.1 port={ports['postgres']} user={name} dbname={database}"
            if name == database:
                psycopg.connect(f"{reach} password={values[f'database.{name}']}").close()
                with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                    psycopg.connect(f"{reach} password=wrong")
            else:
                with pytest.raises(psycopg.OperationalError, match="permission denied"):
                    psycopg.connect(f"{reach} password={values[f'database.{name}']}")


def test_the_catalogue_has_the_tables_of_this_version(ports, values):
    password = values["database.catalogue"]
    with psycopg.connect(
        f"host=127.0.0.1 port={ports['postgres']} user=catalogue dbname=catalogue password={password}"
    ) as connection:
        assert connection.execute("SELECT version_num FROM catalogue_version").fetchone() == (REVISION,)


def test_each_pool_has_a_worker_and_the_schedules_are_there(stack):
    mine = use(stack, "releaser")
    for pool in ("cpu", "gpu", "flows"):
        assert online.workers(mine["REMINT_PREFECT_API"], mine["PREFECT_API_AUTH_STRING"], pool)
    login = base64.b64encode(mine["PREFECT_API_AUTH_STRING"].encode()).decode()
    request = urllib.request.Request(
        f"{mine['REMINT_PREFECT_API']}/deployments/filter",
        data=b"{}",
        headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
    )
    names = {entry["name"] for entry in json.load(urllib.request.urlopen(request, timeout=20))}
    assert {"cpu", "gpu", "nightly"} <= names


def test_workers_have_clones_of_their_own(stack):
    clones = sorted(path.parent.name for path in (stack.state / "work").glob("worker-*/clone"))
    assert clones == ["worker-cpu-1", "worker-flows", "worker-nogpu-1"]


def test_a_worker_s_run_in_mlflow_keeps_its_files_in_s3_without_keys_of_it(as_, ports, values, tmp_path):
    as_("worker", AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none")
    client, why = training_run.connect(os.environ["REMINT_MLFLOW_URI"])
    assert why == ""
    run = client.create_run(training_run.experiment(client, "trial")).info.run_id
    (tmp_path / "note.txt").write_text("through the server")
    client.log_artifact(run, str(tmp_path / "note.txt"))
    admin = s3.client(f"http://127.0.0.1:{ports['s3']}", (values["s3.admin.key"], values["s3.admin.secret"]))
    keys = [entry["Key"] for entry in admin.list_objects_v2(Bucket=access.MLFLOW, Prefix="artifacts/")["Contents"]]
    assert any(key.endswith(f"{run}/artifacts/note.txt") for key in keys)


def test_a_reader_of_mlflow_cannot_write_and_a_worker_cannot_change_a_model(as_):
    from mlflow.exceptions import MlflowException

    as_("releaser")
    client, _ = training_run.connect(os.environ["REMINT_MLFLOW_URI"])
    experiment = training_run.experiment(client, "releaser's")
    client.create_registered_model("tokenizer")
    as_("worker")
    client.create_run(experiment)
    with pytest.raises(MlflowException, match="403"):
        client.update_registered_model("tokenizer", description="mine")
    as_("reader")
    assert client.get_registered_model("tokenizer").name == "tokenizer"
    with pytest.raises(MlflowException, match="403"):
        client.create_run(experiment)


def test_a_wrong_login_at_mlflow_is_one_line_that_names_the_variables(as_, capfd):
    as_("worker", MLFLOW_TRACKING_PASSWORD="wrong")
    address = os.environ["REMINT_MLFLOW_URI"]
    with pytest.raises(
        UserError, match=r"REMINT_MLFLOW_URI.*401.*MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    ):
        mlflow_server.check(address)
    client, why = training_run.connect(address)  # a stage goes on without tracking, and says why
    assert client is None
    assert "MLFLOW_TRACKING_PASSWORD" in why


def test_a_wrong_login_at_prefect_is_one_line_that_names_the_variable(as_):
    as_("worker", PREFECT_API_AUTH_STRING="remint:wrong")
    with pytest.raises(UserError, match=r"REMINT_PREFECT_API=.*401.*PREFECT_API_AUTH_STRING") as error:
        connect.check(os.environ["REMINT_PREFECT_API"])
    assert "wrong" not in str(error.value)
    as_("worker")
    connect.check(os.environ["REMINT_PREFECT_API"])


def test_garbage_collection_ran_and_waits_for_tomorrow(stack):
    (gc,) = [process for process in processes.read(stack.state / "processes.json") if process.name == "mlflow-gc"]
    until = time.monotonic() + 60
    while "sleep" not in (said := children(gc.pid)) and time.monotonic() < until:
        time.sleep(0.2)
    assert "sleep" in said, (stack.state / "logs" / "mlflow-gc.log").read_text()


def children(pid):
    """The names of a process's children."""
    found = []
    for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found.append(Path(f"/proc/{number}/comm").read_text().strip())
    return found


def test_no_log_and_no_process_s_arguments_hold_a_secret(stack, values):
    every = [value for name, value in values.items() if not name.endswith(".key")]
    texts = {str(path): path.read_text(errors="replace") for path in (stack.state / "logs").iterdir()}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            texts[str(path)] = path.read_text(errors="replace")
        except OSError:
            continue  # it has ended
    assert len(texts) > 10
    assert [name for name, text in texts.items() if any(value in text for value in every)] == []


@pytest.mark.soak
def test_started_again_it_starts_nothing_twice_and_ended_it_keeps_what_it_holds(stack, ports, values):
    before = processes.read(stack.state / "processes.json")
    stack.up(1, "nogpu", print)
    assert processes.read(stack.state / "processes.json") == before
    keys = (values["s3.admin.key"], values["s3.admin.secret"])
    s3.client(f"http://127.0.0.1:{ports['s3']}", keys).put_object(Bucket=access.DATA, Key="kept", Body=b"here")
    stack.down(print)
    stack.up(1, "nogpu", print)
    body = s3.client(f"http://127.0.0.1:{ports['s3']}", keys).get_object(Bucket=access.DATA, Key="kept")["Body"]
    assert body.read() == b"here"
