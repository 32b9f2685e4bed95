"""MaskGIT's sampler against a fake net whose answers are known."""

import math

import pytest
import torch

from data.core.params import UserError, build
from models.maskgit.params import Sampling
from models.maskgit.sampler import guidance_scale, guided, least_certain, masked_count, sample

CODES, NO_CLASS = 7, 3


def how(**changes):
    return Sampling(**{"steps": 8, "guidance": 2.0, "decay": "linear", "temperature": 1.0, **changes})


class Oracle:
    """A fake net that is sure of one token per class and position, and remembers what it was shown."""

    def __init__(self, length):
        self.right = torch.arange(length) % CODES
        self.masked = []

    def __call__(self, tokens, labels):
        self.masked.append((tokens == CODES).sum(1).tolist())
        wanted = (self.right + labels[:, None]) % CODES
        return 50 * torch.nn.functional.one_hot(wanted, CODES).float()


def draw(net, labels, length, plan, seed=0):
    random = torch.Generator().manual_seed(seed)
    return sample(net, torch.tensor(labels), length=length, codes=CODES, no_class=NO_CLASS, how=plan, random=random)


@pytest.mark.parametrize("decay", ["constant", "linear", "power-cosine"])
@pytest.mark.parametrize("steps", [1, 8, 64])
def test_a_net_that_knows_the_answer_gets_its_answer(decay, steps):
    tokens = draw(Oracle(32), [0, 2], 32, how(decay=decay, steps=steps))
    assert tokens.tolist() == [[i % CODES for i in range(32)], [(i + 2) % CODES for i in range(32)]]


def arccos_counts(length, steps):
    return [length] + [math.floor(length * math.acos((s + 1) / steps) / (math.pi / 2)) for s in range(steps - 1)]


def test_the_number_of_masked_tokens_follows_the_arccos_schedule():
    net = Oracle(32)
    draw(net, [0, 1], 32, how(guidance=0.0, decay="constant"))
    assert net.masked == [[n, n] for n in arccos_counts(32, 8)]


def test_equally_certain_tokens_do_not_change_the_number_masked():
    def undecided(tokens, labels):
        seen.append((tokens == CODES).sum().item())
        return torch.zeros(*tokens.shape, CODES)

    seen: list[int] = []
    draw(undecided, [0], 32, how(guidance=0.0, decay="constant", temperature=0.0))
    assert seen == arccos_counts(32, 8)


def test_more_steps_than_tokens_leave_one_for_the_last_step():
    net = Oracle(4)
    draw(net, [0], 4, how(steps=64, guidance=0.0, decay="constant"))
    counts = [row[0] for row in net.masked]
    assert len(counts) == 64
    assert counts[0] == 4
    assert counts[-1] == 1
    assert counts == sorted(counts, reverse=True)


def test_what_was_drawn_for_good_is_kept():
    shown = []

    def net(tokens, labels):
        shown.append(tokens.clone())
        return torch.randn(*tokens.shape, CODES, generator=noise)

    noise = torch.Generator().manual_seed(1)
    last = draw(net, [0, 1], 16, how(guidance=0.0, decay="constant"))
    for before, after in zip(shown, [*shown[1:], last], strict=True):
        known = before != CODES
        assert torch.equal(before[known], after[known])


def test_the_same_seed_draws_the_same_and_another_does_not():
    def flat(tokens, labels):
        return torch.zeros(*tokens.shape, CODES)

    plan = how(temperature=5.0)
    assert torch.equal(draw(flat, [0] * 4, 16, plan, seed=1), draw(flat, [0] * 4, 16, plan, seed=1))
    assert not torch.equal(draw(flat, [0] * 4, 16, plan, seed=1), draw(flat, [0] * 4, 16, plan, seed=2))


def test_guidance_schedules_by_hand():
    constant, linear = how(decay="constant", guidance=3.0), how(decay="linear", guidance=4.0)
    assert [guidance_scale(constant, s) for s in (0, 7)] == [4.0, 4.0]  # cond + 3 (cond - uncond)
    assert [guidance_scale(linear, s) for s in (0, 4, 7)] == [1.0, 3.0, 4.5]  # starts without guidance
    power = how(decay="power-cosine", guidance=7.0)
    assert guidance_scale(power, 0) == 1.0
    assert guidance_scale(power, 4) == pytest.approx(1 + 6 * (1 - math.cos(math.pi / 8)) / 2)


def test_guidance_moves_away_from_the_net_without_a_class():
    def net(tokens, labels):
        return (labels != NO_CLASS).float()[:, None, None].expand(*tokens.shape, CODES) * 3 + 1

    logits = guided(net, torch.zeros(2, 4, dtype=torch.long), torch.tensor([0, 1]), NO_CLASS, scale=2.0)
    assert torch.equal(logits, torch.full((2, 4, CODES), 1 + 2 * 3.0))


def test_no_second_pass_is_paid_where_guidance_is_one():
    net = Oracle(8)
    guided(net, torch.zeros(2, 8, dtype=torch.long), torch.tensor([0, 1]), NO_CLASS, scale=1.0)
    assert len(net.masked[0]) == 2


def test_the_least_certain_are_chosen_exactly_even_when_equal():
    certainty = torch.tensor([[0.5, 0.5, 0.5, torch.inf], [3.0, 1.0, 2.0, 0.0]])
    chosen = least_certain(certainty, torch.tensor([2, 3]))
    assert chosen.tolist() == [[True, True, False, False], [False, True, True, True]]


def test_at_least_one_token_is_settled_and_one_left():
    masked = torch.tensor([[True] * 4, [True] + [False] * 3])
    assert masked_count(4, masked, 0.01).tolist() == [3, 1]


def test_a_wrong_schedule_names_the_known_ones():
    with pytest.raises(UserError, match="decay must be one of constant, linear, power-cosine, not 'cosine'"):
        build(Sampling, {**vars(how()), "decay": "cosine"}, "sampler")
