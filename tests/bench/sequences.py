"""Samba beside a Llama-like net of as many parameters: processor time of a token by the length of the sequence.

    for name, seconds in sequences.training([1024, 8192]): ...   # a token's share of a training step
    for name, seconds in sequences.decoding([1024, 16384]): ...  # a token drawn at that place of its sequence

Lengths are measured in turns, and the best time of each counts. All steps of a training see equally many tokens: the
longest sequence, or several shorter ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from models.llama.generator import Net as Llama
from models.samba.decoder import Decoder
from models.samba.generator import Net as Samba
from models.samba.generator import step

SHAPE = {"codes": 256, "classes": 10, "length": 1024, "dim": 64, "depth": 2, "heads": 1}
MLP, WINDOW = 176, 64


def matching_mlp(samba: Decoder, llama: Callable[[int], Decoder]) -> int:
    """The feed-forward's width with which llama(width) has the number of parameters that is nearest to Samba's."""
    with torch.device("meta"):
        one, two = (count(llama(width)) for width in (1, 2))
    return max(1, round(1 + (count(samba) - one) / (two - one)))


def count(net: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def nets() -> dict[str, Decoder]:
    """Both, of one size."""
    torch.manual_seed(0)
    samba = Samba(**SHAPE, mlp=MLP, window=WINDOW)
    return {"samba": samba, "llama": Llama(**SHAPE, mlp=matching_mlp(samba, lambda mlp: Llama(**SHAPE, mlp=mlp)))}


def training(lengths: Sequence[int], rounds: int = 2) -> Iterator[tuple[str, float]]:
    """Seconds of a token in forward and backward pass, in float32, for each net and length."""
    whole = max(lengths)
    for kind, net in nets().items():
        calls = {}
        for length in lengths:
            tokens = torch.randint(SHAPE["codes"], (whole // length, length))
            calls[f"{kind} {length}"] = partial(_learn, net, tokens)
        yield from _best(calls, whole, rounds)


def _learn(net: Decoder, tokens: torch.Tensor) -> float:
    net.picture = tokens.shape[1]  # one long picture: nothing else of the net depends on it
    labels = torch.zeros(len(tokens), dtype=torch.long)
    began = time.process_time()
    step(net, {"tokens": tokens, "labels": labels}, 0.0)["loss"].backward()
    net.zero_grad()
    return time.process_time() - began


def decoding(places: Sequence[int], tokens: int = 64, rounds: int = 5) -> Iterator[tuple[str, float]]:
    """Seconds of a token that is drawn after so many others, alone in its batch, for each net and place."""
    for kind, net in nets().items():
        net.eval()
        calls = {f"{kind} {place}": partial(_draw, net, place, tokens) for place in places}
        yield from _best(calls, tokens, rounds)


@torch.no_grad()
def _draw(net: Decoder, place: int, tokens: int) -> float:
    """Seconds of the drawing alone: what lies before is taken for drawn, keys and values of zeros."""
    states, given = net.start(1, place + tokens), torch.zeros(1, dtype=torch.long)
    began = time.process_time()
    for position in range(place, place + tokens):
        logits, states = net.step(given, states, position)
        given = logits.argmax(-1)
    return time.process_time() - began


def _best(calls: Mapping[str, Callable[[], float]], tokens: int, rounds: int) -> Iterator[tuple[str, float]]:
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            best[name] = min(best[name], call())
    yield from ((name, seconds / tokens) for name, seconds in best.items())
