"""Parameters, shards, manifest and samples: the ground the stages stand on."""

import tarfile
from dataclasses import dataclass

import numpy as np
import pytest

from data.core import manifest, params, shards
from data.core.params import UserError
from data.core.samples import Samples, decode_disparity, encode_disparity, encode_png


@dataclass(frozen=True)
class Example:
    seed: int
    steps: int
    rate: float = 0.1
    name: str | None = None
    sizes: tuple[int, ...] = (1,)


def written(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


def test_a_section_is_read_into_its_dataclass_with_the_shared_seed(tmp_path):
    path = written(tmp_path, "seed: 7\na:\n  b: {steps: 3, rate: 1, sizes: [2, 3]}\n")
    assert params.load(Example, "a.b", path) == Example(seed=7, steps=3, rate=1.0, sizes=(2, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 7\na: {step: 3}", "a.step is not a parameter; did you mean 'steps'"),
        ("seed: 7\na: {rate: 3}", "a.steps is missing; it must be a whole number"),
        ("seed: 7\na: {steps: many}", "a.steps must be a whole number, not 'many'"),
        ("seed: 7\na: {steps: true}", "a.steps must be a whole number, not True"),
        ("seed: 7\na: {steps: 1, sizes: 4}", "a.sizes must be a list"),
        ("seed: 7\nab: {steps: 1}", "no section 'a'"),
        ("seed: 7\na: [", "not valid YAML"),
        ("- 1", "must hold key: value lines"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_file(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        params.load(Example, "a", written(tmp_path, text))
    assert "params.yaml" in str(error.value)


def test_a_missing_parameter_file_is_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        params.load(Example, "a", tmp_path / "none.yaml")


def picture(seed, size=16):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def folder_of_samples(folder, count=5, per_shard=2):
    pictures = {f"{i:08d}": picture(i) for i in range(count)}
    disparity = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    members = {k: {"rgb.png": encode_png(p), "disp.png": encode_disparity(disparity)} for k, p in pictures.items()}
    entries = shards.write(folder, "test", members.items(), per_shard)
    extra = {"source": "noise", "licence": "CC0-1.0", "label": 1, "class_name": "noise", "split": "train"}
    manifest.write([manifest.row(e, pictures[e.key], **extra) for e in entries], folder)
    return pictures, disparity


def test_samples_come_back_from_their_shards_exactly(tmp_path):
    pictures, disparity = folder_of_samples(tmp_path)
    samples = Samples(tmp_path, "train")
    assert len(samples) == 5
    np.testing.assert_array_equal(samples.images(), np.stack(list(pictures.values())))
    np.testing.assert_allclose(samples.disparity(3), disparity, atol=1 / 65535)


def test_a_shard_is_an_ordinary_tar_file_with_zeroed_headers(tmp_path):
    folder_of_samples(tmp_path)
    with tarfile.open(tmp_path / "test-00000.tar") as archive:
        infos = archive.getmembers()
    assert [i.name for i in infos][:2] == ["00000000.rgb.png", "00000000.disp.png"]
    assert {(i.mtime, i.uid, i.gid) for i in infos} == {(0, 0, 0)}


def test_the_same_samples_give_the_same_bytes(tmp_path):
    folder_of_samples(tmp_path / "a")
    folder_of_samples(tmp_path / "b")
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_corrupt_sample_is_named_and_its_neighbours_still_read(tmp_path):
    folder_of_samples(tmp_path)
    shard = tmp_path / "test-00001.tar"
    damaged = bytearray(shard.read_bytes())
    damaged[600] ^= 255
    shard.write_bytes(damaged)
    samples = Samples(tmp_path)
    with pytest.raises(UserError, match="test-00001.tar: sample 00000002 is corrupt"):
        samples.image(2)
    samples.image(3)


def test_a_missing_shard_and_a_foreign_manifest_are_named(tmp_path):
    folder_of_samples(tmp_path)
    (tmp_path / "test-00002.tar").unlink()
    with pytest.raises(UserError, match="test-00002.tar is missing"):
        Samples(tmp_path).image(4)
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match="cannot be read"):
        Samples(tmp_path)


def test_the_split_is_a_function_of_the_key_with_the_wanted_share():
    splits = [manifest.split_of(f"{i:08d}", 0.1) for i in range(5000)]
    assert splits.count("val") / 5000 == pytest.approx(0.1, abs=0.015)
    assert splits == [manifest.split_of(f"{i:08d}", 0.1) for i in range(5000)]


def test_near_duplicates_have_near_hashes():
    image = picture(3, 64)
    smooth = np.repeat(np.repeat(picture(4, 8), 8, 0), 8, 1)
    brighter = np.clip(smooth.astype(int) + 8, 0, 255).astype(np.uint8)

    def bits(a, b):
        return bin(int(manifest.statistics(a)["dhash"], 16) ^ int(manifest.statistics(b)["dhash"], 16)).count("1")

    assert bits(smooth, brighter) <= 3
    assert bits(smooth, image) > 12


def test_sixteen_bit_disparity_survives_its_png():
    disparity = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    np.testing.assert_allclose(decode_disparity(encode_disparity(disparity)), disparity, atol=0.5 / 65535 + 1e-7)


def test_a_label_of_no_class_is_named_with_its_sample(tmp_path):
    folder_of_samples(tmp_path)
    (tmp_path / "info.json").write_text('{"classes": ["a"]}')
    rows = manifest.read(tmp_path).to_pylist()
    for label in (-1, 1):
        manifest.write([{**row, "label": label if row["key"] == "00000002" else 0} for row in rows], tmp_path)
        with pytest.raises(
            UserError, match=f"sample 00000002 has label {label}, but the classes of info.json are 0 to 0"
        ):
            Samples(tmp_path)
    (tmp_path / "info.json").write_text('{"classes": []}')
    assert Samples(tmp_path).labels[2] == 1


def test_a_sample_without_depth_is_named(tmp_path):
    entries = shards.write(
        tmp_path, "test", [("a", {"rgb.png": encode_png(np.zeros((8, 8, 3), np.uint8))})], per_shard=1
    )
    about = {"source": "test", "licence": "CC0-1.0", "label": -1, "class_name": "", "split": "val"}
    manifest.write([manifest.row(entries[0], np.zeros((8, 8, 3), np.uint8), **about)], tmp_path)
    with pytest.raises(UserError, match=r"sample a has no depth \(disp.png\)"):
        Samples(tmp_path).disparities()


@pytest.mark.parametrize("content", ["{", "[]", '{"classes": 3}'])
def test_a_damaged_info_is_named(tmp_path, content):
    folder_of_samples(tmp_path)
    (tmp_path / "info.json").write_text(content)
    with pytest.raises(UserError, match="info.json cannot be read"):
        Samples(tmp_path)
