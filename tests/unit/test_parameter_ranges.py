"""Hundreds of parameter values: each is one line that names file, section.key and value, or is meant."""

import copy
from pathlib import Path

import pytest

from data.core import params
from data.core.params import UserError
from models import sections

ROOT = Path(__file__).parents[2]
WHOLE = params.read(ROOT / "params.yaml")
NAN, INF = float("nan"), float("inf")
NOT_WHOLE = [1.5, NAN, "two", None, True, [], 2**63, -(2**70)]
NOT_A_NUMBER = [NAN, INF, -INF, "fast", None, False, [0.1]]
LEARNING = ("proxy", "warmup", "tokenizer", "generator.maskgit", "depth.teacher.learn", "depth.student.small.learn")

COUNTS = {  # of something: at least one
    "scenes.samples_per_pixel", "scenes.per_shard", "threads", "accelerate.devices", "accelerate.nodes",
    "tokens.batch", "tokens.per_shard", "depth.labels.batch", "depth.labels.per_shard", "proxy.blocks", "proxy.stem",
    "proxy.codes", "proxy.code_dim", "warmup.patch", "warmup.encoder_layers", "warmup.decoder_layers", "warmup.heads",
    "warmup.latents", "warmup.token_dim", "warmup.codes", "warmup.width", "tokenizer.critic_width",
    "generator.maskgit.net.dim", "generator.maskgit.net.depth", "generator.maskgit.net.heads",
    "generator.maskgit.sampler.steps", "depth.teacher.net.patch_size", "depth.teacher.net.image_size",
    "depth.teacher.net.dim", "depth.teacher.net.layers", "depth.teacher.net.heads", "depth.teacher.net.fusion",
    "depth.teacher.net.head", "evaluate.tokenizer.per_class", "evaluate.tokenizer.per_shard",
    "evaluate.maskgit.samples_per_class", "evaluate.maskgit.probe_steps", "evaluate.maskgit.probe_batch",
    "evaluate.depth.per_shard", *(f"{name}.steps" for name in LEARNING), *(f"{name}.batch" for name in LEARNING),
}  # fmt: skip
SHARES = {
    "photos.held_out_share", "photos.max_bad_share", "validate.min_valid_share", "validate.max_duplicate_share",
    "tokenizer.critic_start", *(f"depth.{name}.learn.{key}" for name in ("teacher", "student.small")
                                for key in ("jitter", "merged", "grey")),
}  # fmt: skip
BELOW_ONE = {"proxy.bypass", "warmup.bypass", "generator.maskgit.label_drop", "generator.maskgit.net.dropout",
             "depth.teacher.learn.ignored", *(f"{name}.ema" for name in LEARNING)}  # fmt: skip
RATES = {"tokenizer.critic_lr", *(f"{name}.{key}" for name in LEARNING for key in ("lr", "muon_lr"))}
WEIGHTS = {"proxy.l1", "proxy.commitment", "warmup.commitment", "warmup.embedding", "warmup.pixels", "tokenizer.l1",
           "tokenizer.perceptual", "tokenizer.adversarial", "tokenizer.lecam", "depth.teacher.learn.gradient",
           "depth.teacher.learn.absolute", "generator.maskgit.weight_decay", "depth.teacher.learn.weight_decay",
           "generator.maskgit.sampler.guidance", "generator.maskgit.sampler.temperature", "validate.max_drift",
           "validate.max_class_imbalance"}  # fmt: skip

BAD = [
    *((key, value) for key in sorted(COUNTS) for value in (0, -1, 1.5, NAN)),
    *((key, value) for key in sorted(SHARES) for value in (-0.1, 1.1, NAN)),
    *((key, value) for key in sorted(BELOW_ONE) for value in (1, -0.1, NAN)),
    *((key, value) for key in sorted(RATES) for value in (0, -0.1, 2.0, INF)),
    *((key, value) for key in sorted(WEIGHTS) for value in (-0.1, NAN, INF)),
    *((f"{name}.clip", value) for name in LEARNING for value in (0, -1, NAN, INF)),
    *((f"{name}.warmup", value) for name in LEARNING for value in (-1, 10**6, 0.5)),
    *((f"{name}.precision", value) for name in LEARNING for value in ("16", "bf16", "fp8", 32, "", "16-mixed")),
    *((f"{name}.batch", 65_537) for name in LEARNING),
    *(("seed", value) for value in [-1, *NOT_WHOLE]),
    *(("threads", value) for value in [1025, *NOT_WHOLE]),
    *(("proxy.steps", value) for value in [10**9, *NOT_WHOLE]),
    *(("proxy.lr", value) for value in NOT_A_NUMBER),
    ("accelerate.strategy", "dp"), ("accelerate.strategy", 1), ("accelerate", 3), ("accelerate.devices", 3),
    ("accelerate.nodes", 5000),
    ("scenes.count", 9), ("scenes.count", 10**9), ("scenes.size", 40), ("scenes.size", 8), ("scenes.size", 8192),
    ("scenes.held_out_share", 0), ("scenes.held_out_share", 1), ("scenes.held_out_share", 1e-5),
    ("scenes.held_out_share", 0.99999), ("scenes.size", 48), ("scenes.size", 128),
    ("photos.source", ""), ("photos.source", "  "), ("photos.source", 3), ("photos.source", None),
    ("photos.size", 15), ("photos.size", 0), ("photos.size", 32), ("photos.count", 1), ("photos.max_pixels", 100),
    ("photos.max_pixels", 1000), ("photos.per_photo", 0), ("photos.per_photo", "all"), ("photos.min_contrast", 0.5),
    ("photos.min_contrast", -0.01), ("photos.min_contrast", NAN),
    ("validate.duplicate_distance", 64), ("validate.duplicate_distance", -1), ("validate.duplicate_distance", 0.5),
    ("validate.previous", ""), ("validate.previous", 1), ("validate.max_drift", "0.2"),
    ("proxy.channels", []), ("proxy.channels", [32, 0]), ("proxy.channels", [32, 1.5]), ("proxy.channels", 32),
    ("proxy.channels", [8] * 9), ("proxy.channels", [32] * 7), ("proxy.codes", 32_769), ("proxy.codes", 1),
    ("proxy.stem", 3), ("proxy.stem", 65), ("proxy.bypass", 0.9999), ("warmup.bypass", 0.9999),
    ("warmup.patch", 7), ("warmup.patch", 128), ("warmup.heads", 3), ("warmup.width", 130), ("warmup.width", 20_000),
    ("warmup.latents", 1), ("warmup.codes", 1), ("warmup.codes", 2**21), ("warmup.encoder_layers", 201),
    ("tokenizer.critic_stages", 50), ("tokenizer.critic_stages", 7), ("tokenizer.critic_stages", -1),
    ("tokenizer.critic_stages", 1.0), ("tokenizer.critic_width", 40), ("tokenizer.critic_width", 5000),
    ("tokenizer.critic_width", 20),
    ("generator.maskgit.net.heads", 3), ("generator.maskgit.net.dim", 127), ("generator.maskgit.net", [1]),
    ("generator.maskgit.sampler.decay", "cosine"), ("generator.maskgit.sampler.decay", None),
    ("generator.maskgit.sampler.anneal", "yes"), ("generator.maskgit.sampler.anneal", 1),
    ("generator.maskgit.sampler.steps", 10**6), ("generator.maskgit", None), ("generator", {"maskgit": 3}),
    ("depth.teacher.net.dim", 1536), ("depth.teacher.net.layers", 40), ("depth.teacher.net.dim", 126),
    ("depth.teacher.net.heads", 3), ("depth.teacher.net.patch_size", 7), ("depth.teacher.net.patch_size", 14),
    ("depth.teacher.net.taps", [0, 1, 2, 3]), ("depth.teacher.net.taps", [0, 1, 4]), ("depth.teacher.net.taps", []),
    ("depth.teacher.net.taps", [4, 3, 2, 0]), ("depth.teacher.net.taps", [0, 2, 2, 4]),
    ("depth.teacher.net.taps", [-1, 2, 3, 4]), ("depth.teacher.net.taps", [0, 2, 3, 5]),
    ("depth.teacher.net.factors", [1.5, 1.0, 1.0, 1.0]), ("depth.teacher.net.factors", [0, 1.0, 1.0, 1.0]),
    ("depth.teacher.net.factors", [2.0, 2.0]), ("depth.teacher.net.neck", [64, 64, 64, 0]),
    ("depth.teacher.net.neck", [64]), ("depth.teacher.net.fusion", 1), ("depth.student.small.net.layers", 24),
    ("depth.teacher.learn.zoom", 0.5), ("depth.teacher.learn.zoom", 0), ("depth.teacher.learn.zoom", INF),
    ("depth.teacher.learn.absolute_share", 0), ("depth.teacher.learn.absolute_share", 1.5),
    ("depth.teacher.learn.optimiser", "adam"), ("depth.labels.batch", 70_000),
    ("evaluate.maskgit.probe_batch", 1), ("evaluate.maskgit.samples_per_class", 3),
    ("evaluate.depth.motorcycle", [64]), ("evaluate.depth.motorcycle", [64, 96, 3]),
    ("evaluate.depth.motorcycle", [0, 96]), ("evaluate.depth.motorcycle", 64), ("evaluate.depth.motorcycle", []),
    ("scenes.colour", 1), ("proxy.learning_rate", 0.1), ("depth.student.small.net.width", 3),
]  # fmt: skip

MEANT = [
    ("seed", 0), ("seed", 2**63 - 1), ("threads", 2), ("accelerate.devices", 2), ("accelerate.strategy", "fsdp"),
    ("accelerate.nodes", 2),  # whether the other nodes come, the stage and the plan of a run ask
    ("scenes.count", 100_000), ("scenes.size", 64), ("photos.count", 2), ("photos.per_photo", 16),
    ("photos.held_out_share", 0), ("photos.max_bad_share", 1), ("photos.source", "~/pictures"),
    ("validate.max_drift", 0), ("validate.max_drift", 1), ("validate.previous", "data/validate/baseline.json"),
    ("validate.max_class_imbalance", 2), ("validate.duplicate_distance", 0), ("proxy.warmup", 0), ("proxy.steps", 1000),
    ("proxy.bypass", 0), ("proxy.l1", 0), ("proxy.channels", [64]), ("proxy.precision", "32-true"), ("proxy.ema", 0),
    ("proxy.lr", 1e-05), ("proxy.lr", 1), ("proxy.codes", 16_384), ("warmup.embedding", 0), ("warmup.latents", 128),
    ("warmup.patch", 16), ("tokenizer.critic_start", 1), ("tokenizer.critic_start", 0), ("tokenizer.critic_stages", 0),
    ("tokenizer.critic_stages", 6), ("tokenizer.critic_width", 48), ("tokenizer.adversarial", 0),
    ("generator.maskgit.label_drop", 0), ("generator.maskgit.sampler.guidance", 0),
    ("generator.maskgit.sampler.decay", "power-cosine"), ("generator.maskgit.sampler.temperature", 0),
    ("depth.teacher.net.factors", [4.0, 2.0, 1.0, 0.5]), ("depth.teacher.learn.zoom", 1),
    ("depth.teacher.learn.absolute", 0), ("depth.teacher.net.dim", 1024), ("depth.teacher.net.image_size", 96),
    ("evaluate.depth.motorcycle", [61, 75]), ("evaluate.maskgit.samples_per_class", 4),
]  # fmt: skip


def changed(key, value):
    values = copy.deepcopy(WHOLE)
    *above, last = key.split(".")
    place = values
    for name in above:
        place = place[name]
    place[last] = value
    return values


def test_the_list_is_long_enough():
    assert len(BAD) >= 400


@pytest.mark.parametrize(("key", "value"), BAD, ids=lambda x: str(x)[:40])
def test_a_value_that_no_stage_could_use_is_one_line_that_names_it(key, value):
    with pytest.raises(UserError) as error:
        sections.judge(changed(key, value), "params.yaml")
    said = str(error.value)
    assert said.startswith("params.yaml: ")
    assert "\n" not in said
    assert key.split(".")[-1] in said or str(value) in said
    assert len(said) < 250


@pytest.mark.parametrize(("key", "value"), MEANT, ids=str)
def test_a_value_that_is_meant_passes(key, value):
    sections.judge(changed(key, value), "params.yaml")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", -1, "params.yaml: seed must be at least 0, not -1"),
        ("seed", 2**63, "params.yaml: seed must be below 2^63, not 9223372036854775808"),
        ("proxy.ema", 1, "params.yaml: proxy.ema must be at least 0 and below 1, not 1"),
        ("proxy.steps", 0, "params.yaml: proxy.steps must be at least 1 and at most 100,000,000, not 0"),
        ("proxy.warmup", 2000, "params.yaml: proxy: warmup is 2000, more than all steps (1000)"),
        ("validate.max_drift", NAN, "params.yaml: validate.max_drift must be a finite number, not nan"),
        ("proxy.precision", "bf16", "proxy.precision must be one of auto, 32-true, bf16-mixed, not 'bf16'"),
        ("tokenizer.critic_stages", 7, "halved so often, nothing is left of scenes.size 64; at most 6"),
        ("depth.teacher.net.dim", 1536, "the giant's blocks are SwiGLU, which is not built here"),
        ("depth.teacher.net.patch_size", 16, ""),
        ("photos.size", 32, "photos.size is 32 and scenes.size 64; depth students learn from both, of one size"),
        ("scenes.size", 80, "photos.size is 64 and scenes.size 80"),
        ("warmup.latents", 1, "warmup.codes is 1024, but k-means has 512 vectors"),
        ("accelerate.devices", 3, "batch is 16, which 3 devices x 1 nodes (accelerate) cannot share evenly"),
        ("accelerate.devices", 0, "params.yaml: accelerate.devices must be at least 1 and at most 1,024, not 0"),
    ],
    ids=str,
)
def test_the_line_says_what_would_do(key, value, said):
    try:
        sections.judge(changed(key, value), "params.yaml")
    except UserError as error:
        assert said
        assert said in str(error)  # noqa: PT017
    else:
        assert not said
