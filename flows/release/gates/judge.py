"""Candidates of a release judged: values in, decisions out. Nothing here reads a file, a store or a clock.

A family is judged as a whole, because it goes to production as a whole (a new tokenizer makes its generator train
again, so a member may have changed without being meant to be better):

    every changed member   has what is required, keeps to its limits and is non-inferior to production everywhere:
                           the 95 % interval of (candidate - production) stays above minus the margin
    the family             is better somewhere: at least one metric of one changed member is better by more than
                           noise and a tenth of its margin, at 5 % over all metrics tested together (Bonferroni,
                           which is Holm's first step)
    who needs whom         stands beside the very weights that it was trained with
    people                 have approved what the policy wants approved

One member that is refused holds back the others, and so does one that waits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from flows.catalogue.registered import Registered
from flows.release.gates.compare import InProduction, Measured, NotComparable, Paired, Speed, pair
from flows.release.gates.decision import Decision, Rule, apply_approvals, approval
from flows.release.gates.policy import REQUIRED, Gate
from models.metrics import metric

NOISE = 0.05  # chance at which a release of equal models may pass for better
# Of its margin, how much the bound of a gain must exceed. Where one sample in hundreds makes most of the mean, a sample
# without it looks better by a hair and by more than noise; and a hair is no reason for a release.
LEAST_GAIN = 0.1
SAME = "production measured as the candidate was"


@dataclass(frozen=True)
class _Compared:
    """A metric's non-inferiority, and the pairs it was judged by."""

    model: str
    metric: str
    rule: Rule
    pairs: Paired | None = None
    margin: float = 0.0


@dataclass
class _Member:
    """A changed member of a family while it is judged."""

    one: Registered
    rules: list[Rule]
    compared: list[_Compared] = field(default_factory=list)
    replaces: int | None = None

    @property
    def passed(self) -> bool:
        return all(rule.passed or rule.of_people for rule in self.rules)

    @property
    def decision(self) -> Decision:
        """Its rules, of which `apply_approvals` makes verdict and reason."""
        one, about = self.one, (self.replaces, self.one.weights, self.one.model.family)
        return Decision(one.model.name, one.version, False, "", tuple(self.rules), *about)


def decide(
    candidates: Sequence[Registered],
    gates: Mapping[str, Gate],
    production: Mapping[str, InProduction],
    bound: Mapping[str, str],
    measured: Mapping[str, Measured],
    approved: Collection[str] = (),
) -> list[Decision]:
    """The decisions about every candidate. bound: generator -> tokenizer; approved: weights digests.

    A model without a gate has no limits, and one that production does not have is compared with nothing.
    """
    decisions: dict[str, Decision] = {}
    for family in dict.fromkeys(one.model.family for one in candidates):
        own = [one for one in candidates if one.model.family == family]
        decisions |= {made.model: made for made in _family(own, gates, production, bound, measured, approved)}
    return [decisions[one.model.name] for one in candidates]


def _family(
    candidates: Sequence[Registered],
    gates: Mapping[str, Gate],
    production: Mapping[str, InProduction],
    bound: Mapping[str, str],
    measured: Mapping[str, Measured],
    approved: Collection[str],
) -> list[Decision]:
    decisions, members = [], []
    for one in candidates:
        name, now = one.model.name, production.get(one.model.name)
        if now is not None and stands(one, now):
            reason, family = f"v{now.version} is in production already", one.model.family
            decisions.append(
                Decision(name, one.version, False, reason, weights=one.weights, family=family, unchanged=True)
            )
            continue
        gate, shown = gates.get(name, Gate()), measured.get(name, Measured())
        compared = _margins(one, gate, now, shown) if now else []
        rules = [*_alone(one, gate, shown), *(each.rule for each in compared)]
        if gate.approval == REQUIRED:
            rules.append(approval(one.weights in approved))
        members.append(_Member(one, rules, compared, now.version if now else None))
    after = {one.model.name: one for one in candidates}
    better = _better(members, all(member.replaces is not None for member in members))
    for member in members:
        member.rules += _bindings(member.one.model.name, after, production, bound)
    together = {member.one.model.name: member.passed for member in members}
    for member in members:
        refused = [name for name, passed in together.items() if not passed and name != member.one.model.name]
        beside = [Rule(f"released with {name}", False, "refused", "passed") for name in refused if member.passed]
        member.rules += [*better, *beside]
    return apply_approvals([*decisions, *(member.decision for member in members)], approved)


def stands(one: Registered, now: InProduction) -> bool:
    """Whether a candidate is the very model in production. The same weights with another tokenizer are another one."""
    return (one.weights, one.config) == (now.weights, now.config)


def _alone(one: Registered, gate: Gate, shown: Measured) -> list[Rule]:
    """What a version must show whatever is in production."""
    rules = [
        Rule(f"required: {name}", name in one.metrics, one.metrics.get(name), "a number") for name in gate.required
    ]
    rules += [_reaches(one, name, limit) for name, limit in gate.thresholds.items()]
    if gate.validation == REQUIRED:
        rules.append(Rule("data passed validation", shown.validation == "passed", shown.validation, "passed"))
    if gate.max_bytes is not None:
        small = shown.bytes is not None and shown.bytes <= gate.max_bytes
        rules.append(Rule(f"bytes of weights <= {gate.max_bytes:,}", small, shown.bytes, gate.max_bytes))
    return rules + _latency(gate, shown.speed)


def _latency(gate: Gate, speed: Speed) -> list[Rule]:
    limit, ratio, rules = gate.latency.milliseconds, gate.latency.ratio, []
    took, theirs = speed.candidate, speed.production
    if limit is not None:
        fast = took is not None and took <= limit
        rules.append(Rule(f"ms per picture <= {limit:g}", fast, took, limit, note=speed.problem))
    if ratio is not None and (theirs is not None or speed.problem):
        most = ratio * theirs if theirs is not None else None
        fast = took is not None and most is not None and took <= most
        name = f"ms per picture <= {ratio:g} x production"
        rules.append(Rule(name, fast, took, most, theirs, note=speed.problem or "measured in turns, in one process"))
    return rules


def _reaches(one: Registered, name: str, limit: float) -> Rule:
    value = one.metrics.get(name)
    higher = metric(name).better == "higher"
    passed = value is not None and (value >= limit if higher else value <= limit)  # NaN passes nothing
    return Rule(f"{name} {'>=' if higher else '<='} {limit:g}", passed, value, limit)


def _margins(one: Registered, gate: Gate, now: InProduction, shown: Measured) -> list[_Compared]:
    """Non-inferiority of every metric that the policy compares."""
    if gate.margins and now.problem:
        return [_Compared(one.model.name, "", Rule(SAME, False, None, None, note=now.problem))]
    return [_margin(one, now, shown, name, margin) for name, margin in gate.margins.items()]


def _margin(one: Registered, now: InProduction, shown: Measured, name: str, margin: float) -> _Compared:
    """Non-inferiority of one metric: by its interval where there are values per sample, else by the bare numbers."""
    higher = metric(name).better == "higher"
    words = f"{name} {'>=' if higher else '<='} production {'-' if higher else '+'} {margin:g}"
    problem = shown.problem or ("" if shown.samples and now.samples else "production has no values per sample")
    if problem:
        return _Compared(one.model.name, name, Rule(words, False, one.metrics.get(name), None, note=problem))
    assert shown.samples is not None
    assert now.samples is not None
    if name not in shown.samples.metrics and name not in now.samples.metrics:
        return _Compared(one.model.name, name, _plain(one, now, name, margin, words))
    try:
        pairs = pair(shown.samples, now.samples, name)
    except NotComparable as error:
        rule = Rule(words, False, one.metrics.get(name), None, now.metrics.get(name), note=str(error))
        return _Compared(one.model.name, name, rule)
    low, high = pairs.interval
    passed = low >= -margin if higher else high <= margin
    limit = pairs.production - margin if higher else pairs.production + margin
    rule = Rule(words, passed, pairs.candidate, limit, pairs.production, pairs.difference, low, high, pairs.samples)
    return _Compared(one.model.name, name, rule, pairs, margin)


def _plain(one: Registered, now: InProduction, name: str, margin: float, words: str) -> Rule:
    """A metric of the whole set, such as a distance between distributions: no noise is known."""
    value, theirs = one.metrics.get(name), now.metrics.get(name)
    higher = metric(name).better == "higher"
    if theirs is None:
        return Rule(words, False, value, None, note=f"production was evaluated without {name}")
    limit = theirs - margin if higher else theirs + margin
    passed = value is not None and (value >= limit if higher else value <= limit)
    difference = None if value is None else value - theirs
    return Rule(words, passed, value, limit, theirs, difference, note="plain: it has no values per sample")


def _better(members: Sequence[_Member], replaced: bool) -> list[Rule]:
    """Whether the family is better somewhere; no question where a member is new, or none compared.

    Each metric's one-sided bound is taken at NOISE / number of metrics, so that all together err once in 1 / NOISE,
    and must exceed LEAST_GAIN of its margin.
    """
    asked = [each for member in members for each in member.compared]
    if not asked or not replaced:
        return []
    tested = [each for each in asked if each.pairs is not None]
    level = NOISE / max(1, len(tested))
    name = f"better than production by more than noise and {LEAST_GAIN:g} x margin in one of {len(tested)} metrics"
    gains = [(f"{each.model} {each.metric}", *_gain(each, level), LEAST_GAIN * each.margin) for each in tested]
    winners = ", ".join(what for what, _, least, asked in gains if least > asked)
    note = "; ".join(
        f"{what} gains {gain:.4g}, at least {least:.4g}, asked {asked:.4g}" for what, gain, least, asked in gains
    )
    note = (
        f"{note} (at {1 - level:.2%})"
        if gains
        else "no metric under margins has values per sample of both: name one that has"
    )
    return [Rule(name, bool(winners), winners or "none", "one", note=note)]


def _gain(each: _Compared, level: float) -> tuple[float, float]:
    """(gain, its lower bound) of a metric, positive where the candidate is better."""
    assert each.pairs is not None
    if metric(each.metric).better == "higher":
        return each.pairs.difference, each.pairs.bound(level)
    return -each.pairs.difference, -each.pairs.bound(1 - level)


def _bindings(
    name: str, after: Mapping[str, Registered], production: Mapping[str, InProduction], bound: Mapping[str, str]
) -> list[Rule]:
    """Whether `name` would stand in production beside exactly the weights it was trained with, or that need it."""
    rules = []
    for child, parent in bound.items():
        if name not in (child, parent):
            continue
        one, other = after.get(child) or production.get(child), after.get(parent) or production.get(parent)
        if one is None:
            continue
        title = f"bound to {parent}" if name == child else f"carries {child}"
        wanted, there = one.parents.get(parent, ""), other.weights if other else ""
        rules.append(Rule(title, wanted == there, f"{parent} {wanted[:12]}", f"{parent} {there[:12] or 'none'}"))
    return rules
