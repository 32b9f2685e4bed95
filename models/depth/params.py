"""Parameters of the depth stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from data.core.params import Count, Length, Range, Seed, Share
from models.core.learning import ALONE, Accelerate, Batch, Learning, Threads, Weight, Width

LARGE = 1024  # width of ViT-L


@dataclass(frozen=True)
class NetParams:
    """Sizes of one net. `taps` are the points of the encoder the head reads: 0 = patch embedding, k = block k."""

    image_size: Annotated[int, Range(1, 8192)]
    patch_size: Annotated[int, Range(1, 256)]
    dim: Annotated[int, Range(4, LARGE, why=" (ViT-L; the giant's blocks are SwiGLU, which is not built here)")]
    layers: Annotated[int, Range(1, 39, why=" (ViT-L has 24; the giant's 40 are SwiGLU, which is not built here)")]
    heads: Annotated[int, Range(1, 256)]
    taps: tuple[Annotated[int, Range(0, 39)], ...]
    # size of each tap's map in the head, relative to the patch grid
    factors: tuple[Annotated[float, Range(1 / 64, 64)], ...]
    neck: tuple[Width, ...]  # channels of each tap's map
    fusion: Annotated[int, Range(2, 8192)]  # channels of the fusion blocks
    head: Annotated[int, Range(1, 8192)]  # channels of the last convolution but one

    def __post_init__(self) -> None:
        if not 1 < len(self.taps) == len(self.factors) == len(self.neck):
            raise ValueError("taps, factors and neck must have equal lengths of at least 2")
        if max(self.taps) != self.layers or list(self.taps) != sorted(set(self.taps)):
            raise ValueError(f"taps must rise and end with the last layer ({self.layers}), not {list(self.taps)}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        for name, divisor in (("heads", self.heads), ("4, as positions need", 4)):
            if self.dim % divisor:
                raise ValueError(f"dim must be a multiple of {name} ({divisor}), not {self.dim}")
        for factor in self.factors:
            if factor != round(factor) and 1 / factor != round(1 / factor):
                raise ValueError(f"factors must be whole numbers or one over a whole number, not {factor}")


Size = Annotated[int | None, Range(1, 16_384)]


@dataclass(frozen=True)
class BackboneConfig:
    """What must be right in `backbone_config` of a checkpoint, where it is there, before transformers builds a net."""

    hidden_size: Size = None
    num_hidden_layers: Annotated[int | None, Range(1, 200)] = None
    num_attention_heads: Size = None
    patch_size: Size = None


@dataclass(frozen=True)
class CheckpointConfig:
    """The same of the rest of its config.json."""

    backbone_config: dict
    patch_size: Size = None
    reassemble_hidden_size: Size = None
    neck_hidden_sizes: Annotated[tuple[Width, ...], Length(1, 16)] = ()
    reassemble_factors: Annotated[tuple[float, ...], Length(1, 16)] = ()
    fusion_hidden_size: Size = None
    head_hidden_size: Size = None


@dataclass(frozen=True, kw_only=True)
class LearnParams(Learning):
    """How to train. `absolute` is the first weight of the absolute error, which fades out over `absolute_share` of
    the steps; `ignored` the share of largest errors left out; `zoom`, `jitter`, `merged` and `grey` as in `augment`."""

    weight_decay: Annotated[float, Range(0, 10)]
    gradient: Weight
    absolute: Weight
    absolute_share: Annotated[float, Range(above=0, most=1)]
    ignored: Annotated[float, Range(0, below=1)]
    zoom: Annotated[float, Range(1, 64)]
    jitter: Share
    merged: Share
    grey: Share


@dataclass(frozen=True)
class TrainParams:
    """Sections `depth.teacher` and `depth.student.KIND`."""

    seed: Seed
    threads: Threads
    net: NetParams
    learn: LearnParams
    accelerate: Accelerate = ALONE

    def __post_init__(self) -> None:
        self.accelerate.share(self.learn.batch)


@dataclass(frozen=True)
class LabelParams:
    """Section `depth.labels`."""

    threads: Threads
    per_shard: Count
    batch: Batch


@dataclass(frozen=True)
class EvaluateParams:
    """Section `evaluate.depth`: `motorcycle` is the size (height, width) the photograph is shown at, `per_shard` how
    many batches of scenes are kept as one shard."""

    threads: Threads
    motorcycle: Annotated[tuple[Annotated[int, Range(16, 4096)], ...], Length(2, 2)]
    per_shard: Count
