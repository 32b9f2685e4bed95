"""One reading of YAML: what a stage reads is what DVC records, or it is refused by name."""

import random

import pytest
from dvc.utils.serialize import dumps_yaml, parse_yaml

from data.core import params, plain_yaml
from data.core.params import UserError

ODD = """
1e-05 1e5 1E5 1.e5 .5 -.5 +1 +.5 010 0o10 0o8 0x1F 0b11 1_000 1_0.5 1:30 1:30.5 190:20:30 yes no on off y n Yes
true True TRUE tRUE ~ null Null NULL .inf -.inf +.inf .Inf .nan .NaN 2026-11-27 2026-11-27T10:00:00Z 2026-1-1 1. 00.5
007 08 0 -0 +0 -0.0 1e400 1__0 _1 1_ 0_ 0x 0x_1 -0x1 -0o7 1e 1e+ e1 .e1 . .. + +. ._1 1._ inf nan Infinity 0b 0B1 0O7
0X1 1,000 1e-5x 1_000.5e-3 .5e3 .5e+3 0.0_1 1:2:3 -1:30 12:30:45.5 0o0 00 -_ -_0 1e٣ ٣ = <<
"""


def same(one, other):
    return type(one) is type(other) and (one == other or (one != one and other != other))


def read(text):
    """(value, None), or (None, why not)."""
    try:
        return plain_yaml.loads(text), None
    except plain_yaml.Refused as error:
        return None, str(error)


@pytest.mark.parametrize("scalar", ODD.split())
def test_an_odd_value_is_what_dvc_records_or_refused_by_name(scalar):
    value, refused = read(f"a: {scalar}")
    if refused:
        assert scalar in refused
    else:
        assert same(value["a"], parse_yaml(f"a: {scalar}", "params.yaml")["a"])


def test_random_values_are_what_dvc_records_or_refused():
    draw, taken = random.Random(0), 0
    for _ in range(3000):
        scalar = "".join(draw.choice("0011..ee__--+xobinfaNT~:sTz ") for _ in range(draw.randint(1, 7)))
        value, refused = read(f"a: {scalar}")
        if not refused:
            taken += 1
            assert same(value["a"], parse_yaml(f"a: {scalar}", "params.yaml")["a"]), scalar
    assert taken > 1000


@pytest.mark.parametrize("value", ["0.00001", "1e16", "5e-324", "-1e-7", "123456789.0"])
def test_a_number_that_dvc_writes_is_read_again(value):
    assert same(plain_yaml.loads(dumps_yaml({"a": float(value)}))["a"], float(value))


def test_a_text_that_dvc_writes_is_read_again():
    draw = random.Random(1)
    for _ in range(2000):
        text = "".join(draw.choice("01.e-_:+ nyoTf~#&*'\"{}[],?é\n\t=<") for _ in range(draw.randint(1, 8)))
        assert plain_yaml.loads(dumps_yaml({"a": text}))["a"] == text


@pytest.mark.parametrize("scalar", ["010", "0o10", "0x1F", "0b11", "1_0", "2026-11-27", "00.5", "<<", "="])
def test_what_readers_take_for_different_things_is_refused(scalar):
    assert f"2: {scalar} is not the same to all readers" in read(f"a: 1\nb: {scalar}")[1]
    assert read(f'"b": "{scalar}"')[0] == {"b": scalar}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: 1\nb: 2\na: 3\n", ":3: 'a' is there twice in one section"),
        (b"s: {a: 1, a: 2}\n", ":1: 'a' is there twice"),
        (b"a: &x [1]\nb: *x\n", ":1: anchors and aliases"),
        (b"a: *x\n", ":1: anchors and aliases"),
        (b"a: &a [b]\nc: &c [*a, *a]\n" * 3, ":1: anchors and aliases"),
        (b"<<: {a: 1}\n", ":1: << is not the same"),
        (b"a: !!python/object:os.system x\n", ":1: tags"),
        (b"%YAML 1.1\n---\na: yes\n", "a line that begins with %"),
        (b"a: 1\n---\nb: 1\n", ":2: a second document"),
        (b"[" * 5000, "lie deeper in each other than 20"),
        (b"{a: " * 5000, "lie deeper in each other than 20"),
        (b"a: 1\nb: \xff\n", ":2: byte 0xff is not UTF-8"),
        ("a: 1\n".encode("utf-16"), ":1: byte 0xff is not UTF-8"),
        (b"\xef\xbb\xbfa: 1\n", "byte order mark"),
        (b"a:\n\tb: 1\n", ":2: not valid YAML: found character that cannot start any token; indent with spaces"),
        (b"a: \x00\n", "unacceptable character"),
        (b"a: [1\n", "not valid YAML"),
        (b"1: x\n", ":1: 1 stands where a name must"),
        (b"[a]: x\n", ":1: list stands where a name must"),
        (b"a: " + b"9" * 5000, ":1: a whole number of 5000 digits"),
        (b"a: " + b"x" * (9 << 20), "bytes, more than"),
        (b"", "must hold key: value lines"),
        (b"- 1\n", "must hold key: value lines, not list"),
        (b"just words\n", "must hold key: value lines, not str"),
    ],
)
def test_a_file_that_cannot_be_read_alike_is_one_line_with_its_place(tmp_path, content, said):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        params.read(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_number_may_be_written_in_groups_of_three():
    assert plain_yaml.loads("100_000_000") == 100_000_000


def test_what_dvc_wrote_is_read_with_its_aliases():
    assert plain_yaml.recorded("a: &x [1e-05, no]\nb: *x\n") == {"a": [1e-05, "no"], "b": [1e-05, "no"]}
    with pytest.raises(plain_yaml.Refused, match=r"1: \*x stands for nothing"):
        plain_yaml.recorded("a: *x\n")


def test_a_folder_in_place_of_the_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        params.read(tmp_path)
