"""Two models on the same samples: pairing, and the bootstrap against what is known in closed form."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.release.gates.compare import NotComparable, Paired, Samples, bootstrap_means, pair, read_samples

NORMAL = {0.025: -1.959964, 0.05: -1.644854, 0.5: 0.0, 0.99: 2.326348}  # quantiles


def samples(values, keys=None, name="psnr") -> Samples:
    values = np.asarray(values, np.float64)
    return Samples(tuple(keys or (f"k{i}" for i in range(len(values)))), {name: values})


@pytest.mark.parametrize("level", NORMAL)
def test_the_interval_of_a_normal_mean_is_the_one_of_the_textbook(level):
    values = np.random.default_rng(1).normal(0.3, 2.0, 400)
    error = values.std(ddof=1) / math.sqrt(400)
    expected = values.mean() + NORMAL[level] * error
    assert Paired(0.0, 0.0, values).bound(level) == pytest.approx(expected, abs=0.05 * error)


def test_few_samples_widen_the_interval_as_the_unbiased_variance_does():
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0])  # standard error sqrt(2.5 / 5), biased sqrt(2 / 5)
    means = (bootstrap_means(values) - 2) * math.sqrt(5 / 4)
    assert means.std() == pytest.approx(math.sqrt(0.5), rel=0.02)
    assert Paired(0.0, 0.0, values).bound(0.5) == pytest.approx(2.0, abs=0.05)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Skewed differences of 200 samples; 95 % of 400 intervals, within three standard errors."""
    random = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        differences = random.exponential(1.0, 200) - 1.0
        means = np.sort(bootstrap_means(differences, draws=1000))
        held += means[24] <= 0 <= means[974]
    assert abs(held / 400 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 400)


def test_the_same_differences_give_the_same_interval_and_chunks_do_not_show(monkeypatch):
    values = np.random.default_rng(3).normal(size=50)
    whole = bootstrap_means(values)
    monkeypatch.setattr("flows.release.gates.compare.CHUNK", 50 * 700)  # 10,000 is no multiple of 700
    assert np.array_equal(bootstrap_means(values), whole)
    assert len(whole) == 10_000


def test_differences_without_noise_have_no_interval_and_no_rounding():
    pairs = pair(samples([0.3 + 0.1] * 7), samples([0.3] * 7), "psnr")
    assert pairs.bound(0.025) == pairs.bound(0.975) == pairs.differences[0]


def test_samples_are_paired_by_key_and_not_by_place():
    pairs = pair(samples([1.0, 2.0, 3.0], ["a", "b", "c"]), samples([30.0, 10.0, 20.0], ["c", "a", "b"]), "psnr")
    assert pairs.differences.tolist() == [-9.0, -18.0, -27.0]
    assert (pairs.candidate, pairs.production, pairs.difference, pairs.samples) == (2.0, 20.0, -18.0, 3)


def test_what_production_has_no_number_for_is_left_out_of_both_means():
    pairs = pair(samples([1.0, 2.0, 9.0]), samples([1.0, 1.0, math.nan]), "psnr")
    assert (pairs.candidate, pairs.production, pairs.samples) == (1.5, 1.0, 2)
    both = pair(samples([1.0, 2.0, math.nan]), samples([1.0, 1.0, math.nan]), "psnr")
    assert both.samples == 2


@pytest.mark.parametrize(
    ("candidate", "production", "says"),
    [
        (samples([1, 2, math.nan]), samples([1, 2, 3]), "the candidate has no psnr for 1 of the samples"),
        (samples([1, 2, math.inf]), samples([1, 2, 3]), "the candidate has no psnr for 1 of the samples"),
        (samples([1, 2], "ab"), samples([1, 2, 3], "abc"), r"the candidate was not evaluated on 1 of the samples \(c"),
        (samples([1, 2, 3], "abc"), samples([1, 2], "ab"), r"production was not evaluated on 1 of the samples \(c"),
        (samples([1, 2, 3], "aba"), samples([1, 2, 3], "abc"), "the candidate's evaluation has the sample a twice"),
        (samples([1, 2, 3], "abc"), samples([1, 2, 3], "abb"), "production's evaluation has the sample b twice"),
        (samples([1.0]), samples([2.0]), "only 1 samples"),
        (samples([1.0, 2.0]), samples([math.nan, 2.0]), "only 1 samples"),
        (samples([1.0, 2.0]), samples([1.0, 2.0], name="ssim"), "production has no psnr per sample"),
        (samples([1.0, 2.0], name="ssim"), samples([1.0, 2.0]), "the candidate has no psnr per sample"),
    ],
)
def test_samples_that_do_not_pair_up_are_not_compared(candidate, production, says):
    with pytest.raises(NotComparable, match=says):
        pair(candidate, production, "psnr")


def table(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_held_out_pictures_are_read_with_every_class_alone(tmp_path):
    columns = {"key": ["a", "b", "c"], "class": ["glass", "room", "glass"], "psnr": [1.0, 2.0, None]}
    read = read_samples(table(tmp_path / "per_sample.parquet", **columns))
    assert read.keys == ("a", "b", "c")
    assert np.array_equal(read.metrics["psnr"], [1, 2, np.nan], equal_nan=True)
    assert np.array_equal(read.metrics["psnr_glass"], [1, np.nan, np.nan], equal_nan=True)
    assert set(read.metrics) == {"psnr", "psnr_glass", "psnr_room"}


def test_a_file_of_two_models_is_read_for_one(tmp_path):
    columns = {"key": ["a", "a"], "class": ["x", "x"], "model": ["teacher", "small"], "delta1": [0.9, 0.8]}
    path = table(tmp_path / "per_sample.parquet", **columns)
    assert read_samples(path, "small").metrics["delta1"].tolist() == [0.8]
    with pytest.raises(NotComparable, match="no rows of base"):
        read_samples(path, "base")


def test_generated_pictures_agree_or_not_and_are_the_same_only_for_the_same_class(tmp_path):
    columns = {"sample": [0, 1, 2], "class_asked": [0, 1, 1], "class_seen": [0, 1, 0], "confidence": [0.9, 0.8, 0.2]}
    read = read_samples(table(tmp_path / "per_sample.parquet", **columns))
    assert read.metrics["class_agreement"].tolist() == [100, 100, 0]
    other = read_samples(table(tmp_path / "other.parquet", **columns | {"class_asked": [0, 1, 0]}))
    with pytest.raises(NotComparable, match="was not evaluated on 1 of the samples"):
        pair(read, other, "class_agreement")


def test_a_damaged_missing_or_foreign_file_is_said_in_one_line(tmp_path):
    with pytest.raises(NotComparable, match="none.parquet is missing"):
        read_samples(tmp_path / "none.parquet")
    broken = tmp_path / "per_sample.parquet"
    broken.write_bytes(b"PAR1 and no more")
    with pytest.raises(NotComparable, match="per_sample.parquet cannot be read: ") as error:
        read_samples(broken)
    assert "\n" not in str(error.value)
    with pytest.raises(NotComparable, match="names no samples: it has the columns psnr"):
        read_samples(table(tmp_path / "foreign.parquet", psnr=[1.0]))
    with pytest.raises(NotComparable, match="has no rows"):
        read_samples(table(tmp_path / "empty.parquet", key=pa.array([], pa.string())))
