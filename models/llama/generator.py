"""The Llama-like baseline: Samba's decoder with full attention in every layer; all else is Samba's.

It is in no graph. With `mlp` chosen so that both have as many parameters (`python -m tests.bench.sequences` does so) it
tells what the mixers are worth.
"""

from __future__ import annotations

from models.core.learning import Heads, Layers, Width
from models.samba.attention import WindowAttention
from models.samba.decoder import Decoder
from models.samba.generator import Classes, Codes, Length, batch, sample, step
from models.samba.params import Dropout, Stream

__all__ = ["Net", "batch", "sample", "step"]


class Net(Decoder):
    """See `Decoder`."""

    def __init__(
        self,
        *,
        codes: Codes,
        classes: Classes,
        length: Length,
        dim: Width,
        depth: Layers,
        heads: Heads,
        mlp: Width,
        dropout: Dropout = 0.0,
        stream: Stream = 1,
    ) -> None:
        mixers = [WindowAttention(dim, heads, None) for _ in range(depth)]
        shape = {"codes": codes, "classes": classes, "length": length, "dim": dim}
        super().__init__(mixers, **shape, mlp=mlp, dropout=dropout, stream=stream)
