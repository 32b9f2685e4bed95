"""The nets of Samba and of the Llama-like baseline: published equations, sizes and starts; drawing token by token."""

import math

import pytest
import torch
from torch.nn import functional as F

from data.core import params
from data.core.params import UserError
from models.generator.load import build
from models.llama.generator import Net as Llama
from models.samba.generator import Net as Samba
from models.samba.generator import batch, step
from models.samba.mamba import Mamba
from models.samba.params import Net as Size

TINY = {"codes": 11, "classes": 3, "length": 6, "dim": 16, "depth": 4, "heads": 2, "mlp": 24}
SAMBA = {**TINY, "window": 3, "state": 4}


def filled(net, seed=0):
    """A net all of whose weights matter."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=random, dtype=weight.dtype))
    return net


def norm(x, weight):
    return weight * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def published_mamba(p, u, states=16):
    """microsoft/Samba, mamba_simple.py, the path without kernels, one token after the other."""
    inner, rank = p["skip"].numel(), math.ceil(u.shape[-1] / 16)
    x, z = (u @ p["in_proj.weight"].T).split(inner, -1)
    convolved = F.conv1d(x.mT, p["conv.weight"], p["conv.bias"], padding=3, groups=inner)[..., : u.shape[1]]
    x = F.silu(convolved).mT
    dt, b, c = (x @ p["x_proj.weight"].T).split([rank, states, states], -1)
    dt = torch.log1p(torch.exp(dt @ p["dt_proj.weight"].T + p["dt_proj.bias"]))
    a, state, ys = -torch.exp(p["a_log"].view(inner, states)), torch.zeros(len(u), inner, states, dtype=u.dtype), []
    for t in range(u.shape[1]):
        state = state * torch.exp(torch.einsum("bd,dn->bdn", dt[:, t], a))
        state = state + x[:, t, :, None] * torch.einsum("bd,bn->bdn", dt[:, t], b[:, t])
        ys.append(torch.einsum("bdn,bn->bd", state, c[:, t]) + p["skip"] * x[:, t])
    return (torch.stack(ys, 1) * F.silu(z)) @ p["out_proj.weight"].T


def published_attention(p, x, heads, window):
    length, width = x.shape[1], x.shape[-1] // heads
    q, k, v = (x @ p["qkv.weight"].T).view(len(x), length, 3, heads, width).unbind(2)
    angles = torch.arange(length)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    turn = torch.polar(torch.ones_like(angles), angles).to(torch.complex128)[:, None]

    def rotated(x):
        pairs = torch.complex(*x.double().chunk(2, -1)) * turn
        return torch.cat([pairs.real, pairs.imag], -1).to(x.dtype)

    scores = torch.einsum("bihd,bjhd->bhij", rotated(q), rotated(k)) / math.sqrt(width)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    scores = scores.masked_fill((distance < 0) | (distance >= window), -math.inf)
    y = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
    return y.flatten(2) @ p["out_proj.weight"].T


def published(net, ids, heads, window):
    """Logits after each of the ids: even layers Mamba, odd ones attention, a SwiGLU after each."""
    p = dict(net.named_parameters())
    x = p["embed.weight"][ids]
    for layer in range(len(net.blocks)):
        own = {n.removeprefix(f"blocks.{layer}."): w for n, w in p.items() if n.startswith(f"blocks.{layer}.")}
        mixer = {n.removeprefix("mixer."): w for n, w in own.items() if n.startswith("mixer.")}
        seen = norm(x, own["norm1.weight"])
        x = x + (published_attention(mixer, seen, heads, window) if layer % 2 else published_mamba(mixer, seen))
        gate, value = (norm(x, own["norm2.weight"]) @ own["mlp.up.weight"].T).chunk(2, -1)
        x = x + (F.silu(gate) * value) @ own["mlp.down.weight"].T
    return norm(x, p["norm.weight"]) @ p["embed.weight"][: net.codes].T


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
def test_the_net_is_what_the_published_equations_say(dtype, close):
    torch.manual_seed(0)
    net = filled(Samba(codes=11, classes=3, length=21, dim=48, depth=4, heads=2, mlp=64, window=8).to(dtype), seed=1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(0.5)  # so that the last digits of float32 are not all that differs
        tokens, labels = torch.randint(11, (2, 21)), torch.tensor([0, 3])
        expected = published(net, torch.cat([11 + labels[:, None], tokens[:, :-1]], 1), heads=2, window=8)
        torch.testing.assert_close(net(tokens, labels), expected, rtol=close, atol=close)


NETS = {
    "samba": lambda **more: Samba(**{**SAMBA, **more}),
    "llama": lambda **more: Llama(**{**TINY, **more}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pictures", [1, 2, 5])
@pytest.mark.parametrize("kind", NETS)
def test_token_by_token_gives_the_logits_of_the_whole_row(kind, pictures, dtype):
    torch.manual_seed(0)
    net = filled(NETS[kind](length=12, stream=2).to(dtype)).eval()  # 6 tokens a picture
    tokens, labels = torch.randint(11, (3, 6 * pictures)), torch.tensor([0, 2, 3])
    begin = (11 + labels)[:, None, None].expand(-1, pictures, 1)
    ids = torch.cat([begin, tokens.view(3, pictures, 6)], 2)
    states, found = net.start(3, ids[0].numel()), []
    with torch.no_grad():
        for place, given in enumerate(ids.flatten(1).T):
            logits, states = net.step(given, states, place)
            found.append(logits)
        found = torch.stack(found, 1).view(3, pictures, 7, 11)[:, :, :-1].flatten(1, 2)
        torch.testing.assert_close(found, net(tokens, labels), rtol=1e-5, atol=1e-5)


def test_no_logits_follow_from_their_own_token_or_a_later_one():
    for make in NETS.values():
        net = filled(make()).eval()
        tokens = torch.randint(11, (1, 6))
        before = net(tokens, torch.tensor([1]))
        for place in range(6):
            other = tokens.clone()
            other[0, place] = (other[0, place] + 1) % 11
            same = (net(other, torch.tensor([1])) == before).all(-1)[0]
            assert same[: place + 1].all()
            assert not same[place + 1 :].any()


def test_what_a_drawing_remembers_has_one_size_at_any_length():
    net = Samba(**SAMBA)

    def size(length):
        return sum(part.numel() for state in net.start(1, length) for part in state)

    assert size(16) == size(16_384)
    assert Llama(**TINY).start(1, 16_384)[0][0].shape[2] == 16_384


def test_every_layer_starts_as_published():
    torch.manual_seed(0)
    net = Samba(codes=500, classes=10, length=4, dim=64, depth=6, heads=1, mlp=96, window=4)
    assert net.embed.weight.std().item() == pytest.approx(0.02, rel=0.02)
    for layer, block in enumerate(net.blocks):
        assert isinstance(block.mixer, Mamba) == (layer % 2 == 0)
        for name, weight in block.named_parameters():
            if weight.ndim == 2 and "dt_proj" not in name:
                ends = (2 * 6) ** -0.5 if name.endswith(("out_proj.weight", "down.weight")) else 1
                bound = ends * weight.shape[1] ** -0.5  # torch's own: uniform within 1 / sqrt(inputs)
                assert 0.9 * bound < weight.abs().max() <= bound
    mixer = net.blocks[0].mixer
    assert mixer.dt_proj.weight.abs().max() <= 4**-0.5  # the rank is 64 / 16
    dt = F.softplus(mixer.dt_proj.bias)
    assert 9.9e-4 < dt.min() < 2e-3
    assert 5e-2 < dt.max() < 0.101
    assert dt.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.4)
    torch.testing.assert_close(mixer.a_log.exp().view(128, 16), torch.arange(1.0, 17).expand(128, 16))
    assert (mixer.skip == 1).all()


PUBLISHED = {"421M": (12, 1536, 12, 4096), "1.3B": (18, 2304, 18, 6144)}  # layers, width, heads, feed-forward


@pytest.mark.parametrize(("name", "count"), [("421M", 421_793_280), ("1.3B", 1_330_207_488)])
def test_the_published_shapes_have_the_published_parameters(name, count):
    depth, dim, heads, mlp = PUBLISHED[name]
    with torch.device("meta"):
        net = Samba(codes=31_989, classes=10, length=32, dim=dim, depth=depth, heads=heads, mlp=mlp, window=2048)
    inner, rank = 2 * dim, math.ceil(dim / 16)
    mamba = 3 * inner * dim + inner * (4 + 1) + (rank + 32) * inner + inner * (rank + 1) + (16 + 1) * inner
    layers = depth // 2 * (mamba + 4 * dim * dim) + depth * (3 * dim * mlp + 2 * dim)
    assert sum(p.numel() for p in net.parameters()) == 32_000 * dim + layers + dim == count


def test_matrices_alone_go_to_muon():
    """Decays and convolutions are no matrices of a layer; see `models.core.optim.muon_adamw`."""
    net = Samba(**SAMBA)
    matrices = {name.split(".", 2)[2] for name, w in net.named_parameters() if w.ndim == 2 and "blocks." in name}
    mixers = {"in_proj", "x_proj", "dt_proj", "out_proj", "qkv"}
    assert matrices == {f"mixer.{name}.weight" for name in mixers} | {"mlp.up.weight", "mlp.down.weight"}


def test_a_codebook_start_puts_like_codes_side_by_side_at_the_published_size():
    torch.manual_seed(0)
    net = Samba(**{**SAMBA, "dim": 64})
    codebook = torch.randn(11, 12)
    codebook[1] = codebook[0]
    net.start_from_codebook(codebook)
    similarity = F.cosine_similarity(net.embed.weight[:1], net.embed.weight[1:11])
    assert similarity.argmax().item() == 0
    assert net.embed.weight[:11].std().item() == pytest.approx(0.02, rel=0.4)


def test_the_loss_is_that_of_each_token_after_those_before_it():
    net = Samba(**SAMBA)
    made = batch(net, torch.randint(11, (8, 6)), torch.zeros(8, dtype=torch.long), 0.0, torch.Generator())
    losses = step(net, made, 0.0)
    expected = F.cross_entropy(net(made["tokens"], made["labels"]).flatten(0, 1), made["tokens"].flatten())
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["nll"].item() == pytest.approx(math.log(11), abs=0.2)
    dropped = batch(net, torch.zeros(4000, 6).long(), torch.zeros(4000).long(), 0.1, torch.Generator().manual_seed(0))
    assert (dropped["labels"] == net.no_class).float().mean().item() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dim": 30, "heads": 4}, r"dim must be a multiple of heads \(4\), not 30"),
        ({"dim": 6, "heads": 2}, "dim / heads must be even: RoPE turns channels in pairs, not 6 / 2"),
        ({"window": 0}, "net.window must be at least 1 and at most 1,000,000, not 0"),
        ({"state": 0}, "net.state must be at least 1 and at most 1,024, not 0"),
        ({"stream": 0}, "net.stream must be at least 1 and at most 1,000,000, not 0"),
        ({"mlp": 2.5}, "net.mlp must be a whole number, not 2.5"),
        ({"windwo": 4}, "net.windwo is not a parameter; did you mean 'window'?"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(change, says):
    size = {"dim": 16, "depth": 2, "heads": 2, "mlp": 8, "dropout": 0.0, "stream": 1, "window": 4, "state": 16}
    with pytest.raises(UserError, match=says):
        params.build(Size, {**size, **change}, "params.yaml: generator.samba.net")


@pytest.mark.parametrize(("kind", "shape"), [("samba", SAMBA), ("llama", TINY)])
def test_rows_that_are_not_so_many_pictures_are_one_line(kind, shape):
    with pytest.raises(UserError, match="net.stream is 4, but rows of 6 tokens are not as many pictures"):
        build(kind, {**shape, "stream": 4})


def test_the_baseline_can_have_as_many_parameters():
    shape = {"codes": 1024, "classes": 10, "length": 32, "dim": 128, "depth": 4, "heads": 2}
    samba = Samba(**shape, mlp=341, window=16)
    llama = Llama(**shape, mlp=407)
    ours, theirs = (sum(p.numel() for p in net.parameters()) for net in (samba, llama))
    assert theirs == pytest.approx(ours, rel=0.01)
