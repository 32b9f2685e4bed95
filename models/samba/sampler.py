"""One token after the other from a decoder whose state stays as large as it is.

    u = a uniform number for every token of every row, all drawn beforehand, row by row
    given = the class
    for each place:
        logits = the decoder's for what follows `given`, with and without the class, combined by the guidance
        given = the token at whose share of the summed probabilities u lies

So a row depends on its class and its own numbers, and not on the rows that it is drawn with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.samba.decoder import Decoder
from models.samba.params import Sampling


@torch.no_grad()
def sample(net: Decoder, labels: Tensor, how: Sampling, random: torch.Generator) -> Tensor:
    """Tokens int64 (B, K) in [0, codes) of one picture of each of the classes `labels` (B,)."""
    length = net.picture
    uniform = torch.rand(len(labels), length, generator=random, device=random.device)
    given = net.codes + labels
    if how.guidance:
        given = torch.cat([given, torch.full_like(given, net.codes + net.no_class)])
    states, tokens = net.start(len(given), length), []
    for place in range(length):
        logits, states = net.step(given, states, place)
        logits = guided(logits.float(), how.guidance * place / length) if how.guidance else logits.float()
        tokens.append(draw(logits / how.temperature, uniform[:, place]))
        given = tokens[-1].repeat(len(given) // len(labels))
    return torch.stack(tokens, dim=1)


def guided(both: Tensor, push: float) -> Tensor:
    """Of logits (2 B, codes), the first half with a class and the second without: with + push * (with - without)."""
    with_class, without = both.chunk(2)
    return with_class + push * (with_class - without)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """int64 (B,): the code at which the summed probabilities of (B, codes) reach `uniform` (B,) in [0, 1)."""
    summed = logits.double().softmax(-1).cumsum(-1)
    return (summed <= uniform[:, None] * summed[:, -1:]).sum(-1).clamp(max=logits.shape[-1] - 1)
