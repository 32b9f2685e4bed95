"""Drawing a token after the other, streams of pictures, and that a row does not depend on its neighbours."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.core.params import UserError
from models.generator.load import Generator, draw_tokens
from models.samba import sampler, streams
from models.samba.generator import Net
from models.samba.params import Sampling

SAMBA = {"codes": 11, "classes": 3, "length": 6, "dim": 16, "depth": 2, "heads": 2, "mlp": 24, "window": 3}


def net(**more):
    torch.manual_seed(0)
    made = Net(**{**SAMBA, **more}).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return made


def draw(how, labels, seed=0, **more):
    made = Generator(net(**more), "samba", how, ("a", "b", "c"), "")
    return draw_tokens(made, torch.as_tensor(labels), seed)


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_pictures_are_the_same_whatever_they_are_drawn_with(guidance):
    labels = torch.arange(14) % 3
    how, random = Sampling(guidance, 1.0), torch.Generator().manual_seed(5)
    whole = sampler.sample(net(), labels, how, torch.Generator().manual_seed(5))
    for size in (1, 7):
        random.manual_seed(5)
        assert torch.equal(torch.cat([sampler.sample(net(), part, how, random) for part in labels.split(size)]), whole)


def test_the_same_seed_draws_the_same_and_another_draws_others():
    how, labels = Sampling(1.0, 1.0), [0, 1, 2, 2]
    first = draw(how, labels)
    assert first.shape == (4, 6)
    assert 0 <= first.min() <= first.max() < 11
    assert torch.equal(first, draw(how, labels))
    assert not torch.equal(first, draw(how, labels, seed=1))


def test_a_net_of_streams_draws_one_picture():
    assert draw(Sampling(0.0, 1.0), [0], stream=3).shape == (1, 2)


def test_a_cold_drawing_takes_the_most_likely_token_every_time():
    made, labels = net(), torch.tensor([0, 1, 2])
    tokens = sampler.sample(made, labels, Sampling(0.0, 1e-6), torch.Generator().manual_seed(0))
    assert torch.equal(made(tokens, labels).argmax(-1), tokens)


def test_tokens_come_as_often_as_their_probability_says():
    logits = torch.tensor([0.5, 0.0, 0.3, 0.2]).log()
    drawn = sampler.draw(logits.expand(20_000, 4), torch.rand(20_000, generator=torch.Generator().manual_seed(0)))
    share = torch.bincount(drawn, minlength=4) / 20_000
    assert share[1] == 0
    torch.testing.assert_close(share, logits.exp(), atol=0.01, rtol=0)


def test_no_number_draws_a_token_of_no_probability():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(3, 3)
    assert sampler.draw(logits, torch.tensor([0.0, 0.5, 1.0 - 2**-24])).tolist() == [1, 1, 1]


def test_guidance_pushes_away_from_the_logits_without_a_class():
    both = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(sampler.guided(both, 2.0), torch.tensor([[3.0, 0.0]]))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_of_no_class_is_one_line(label):
    with pytest.raises(UserError, match=f"label {label} is of no class; the generator's are 0 to 2"):
        draw(Sampling(0.0, 1.0), [0, label])


def test_streams_are_pictures_of_one_class_and_none_returns_before_all_were_seen():
    labels = torch.arange(40) % 2
    tokens = torch.arange(40)[:, None].repeat(1, 3)
    made = streams.make(tokens, labels, pictures=5, passes=2, random=torch.Generator().manual_seed(0))
    assert made.tokens.shape == (16, 15)
    pictures = made.tokens.view(16, 5, 3)
    assert (pictures == pictures[..., :1]).all()
    assert (labels[pictures[..., 0]] == made.labels[:, None]).all()
    for label in (0, 1):
        seen = pictures[made.labels == label, :, 0].flatten()
        assert sorted(seen[:20].tolist()) == sorted(seen[20:].tolist()) == list(range(label, 40, 2))


def test_the_streams_of_a_set_of_tokens_are_one_too(tmp_path, monkeypatch):
    tokens, streamed = tmp_path / "tokens", tmp_path / "streams"
    tokens.mkdir()
    rows = {f"{split}_tokens": torch.randint(11, (12, 4), dtype=torch.int32) for split in ("train", "val")}
    rows |= {f"{split}_labels": torch.arange(12) % 3 for split in ("train", "val")}
    save_file(rows, tokens / "tokens.safetensors")
    (tokens / "info.json").write_text(json.dumps({"classes": ["a", "b", "c"], "codes": 11, "tokenizer": "0"}))
    words = ["--tokens", str(tokens), "--out", str(streamed), "--pictures"]
    written = []
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["streams", *words, "2", "--passes", "1"])
        streams.main()
        written.append((streamed / "tokens.safetensors").read_bytes())
    assert written[0] == written[1]
    assert load_file(streamed / "tokens.safetensors")["train_tokens"].shape == (6, 8)
    assert json.loads((streamed / "info.json").read_text())["codes"] == 11
    for wrong, says in (("9", "no class has as many in 1 passes; raise"), ("0", "--pictures must be at least 1")):
        monkeypatch.setattr(sys, "argv", ["streams", *words, wrong, "--passes", "1"])
        with pytest.raises(UserError, match=says):
            streams.main()
