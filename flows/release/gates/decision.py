"""Decisions of the gates: rules with all their numbers, what follows from approvals, and how each is written."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

APPROVAL = "approval"

Verdict = Literal["passed", "refused", "waiting", "unchanged"]


@dataclass(frozen=True)
class Rule:
    """One test with all its numbers; `limit` is what the candidate had to reach, production's value taken in.

    difference, low, high: candidate - production over `samples` pairs, with its confidence interval; None where
    there are no values per sample. `note` says what the numbers do not.
    """

    name: str  # "psnr >= 16", "psnr >= production - 0.2", "required: psnr", "bound to tokenizer"
    passed: bool
    candidate: float | str | None
    limit: float | str | None
    production: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    samples: int | None = None
    note: str = ""

    @property
    def of_people(self) -> bool:
        """Whether it is an approval, of the version itself or of one beside it: a person's word may come later."""
        return self.name == APPROVAL or self.beside

    @property
    def beside(self) -> bool:
        """Whether it is the approval of another version of the family."""
        return self.name.startswith(f"{APPROVAL} of ")


@dataclass(frozen=True)
class Decision:
    """What became of one registered version, and by which rules."""

    model: str
    version: int
    promoted: bool
    reason: str  # one line for the table
    rules: tuple[Rule, ...] = ()
    replaces: int | None = None  # the version in production until now
    weights: str = ""
    family: str = ""
    unchanged: bool = False  # this very model is in production already: nothing to decide

    @property
    def failed(self) -> list[Rule]:
        return [rule for rule in self.rules if not rule.passed]

    @property
    def waiting(self) -> bool:
        """Whether nothing but a person's approval is missing, of this version or of one beside it."""
        return bool(self.failed) and all(rule.of_people for rule in self.failed)

    @property
    def waits_itself(self) -> bool:
        """Whether its own approval is missing, not only that of a version beside it."""
        return self.waiting and any(rule.name == APPROVAL for rule in self.failed)

    @property
    def verdict(self) -> Verdict:
        if self.unchanged:
            return "unchanged"
        return "passed" if self.promoted else "waiting" if self.waiting else "refused"


def apply_approvals(decisions: Sequence[Decision], approved: Collection[str]) -> list[Decision]:
    """The decisions about one family with what people have approved by now; nothing else is judged again."""
    own = [replace(one, rules=tuple(_with_approval(one, approved))) for one in decisions]
    refused = any(not one.unchanged and not one.waiting and one.failed for one in own)
    waiting = [] if refused else [one for one in own if one.waiting]
    made = []
    for one in own:
        others = [f"{APPROVAL} of {other.model} v{other.version}" for other in waiting if other.model != one.model]
        beside = tuple(Rule(name, False, "not given", "given") for name in others if not one.unchanged)
        made.append(_concluded(replace(one, rules=(*one.rules, *beside))))
    return made


def _with_approval(one: Decision, approved: Collection[str]) -> Iterator[Rule]:
    """A decision's own rules, with its approval as it is now and without those of the versions beside it."""
    for rule in one.rules:
        if rule.name == APPROVAL:
            yield approval(one.weights in approved)
        elif not rule.beside:
            yield rule


def _concluded(one: Decision) -> Decision:
    """A decision with verdict and reason as its rules have them."""
    if one.unchanged:
        return one
    first = "first release" if one.replaces is None else f"replaces v{one.replaces}"
    waits = [rule for rule in one.failed if rule.of_people]
    fatal = [rule for rule in one.failed if rule not in waits]
    reason = "; ".join(map(says, fatal)) or ", ".join(f"waits for {rule.name}" for rule in waits) or first
    return replace(one, promoted=not one.failed, reason=reason)


def approval(given: bool) -> Rule:
    """A person's word, which is the one thing that may come later."""
    return Rule(APPROVAL, given, "given" if given else "not given", "given")


def says(rule: Rule) -> str:
    """A failed rule with its numbers, for a table: "psnr >= 16 failed: 14.2"."""
    if rule.candidate is None or rule.limit is None:  # nothing was compared
        return f"{rule.name} failed: {rule.note or 'not measured'}"
    if isinstance(rule.candidate, str):
        return f"{rule.name} failed: {rule.candidate} against {rule.limit}"
    against = "" if rule.production is None else f" against {rule.production:.4g} in production"
    interval = "" if rule.low is None or rule.high is None else f" (difference {rule.low:.3g} to {rule.high:.3g})"
    return f"{rule.name} failed: {rule.candidate:.4g}{against}{interval}"


def cell(value: float | str | None) -> str:
    """A number to four digits, a count in full, a word as it is."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def interval(difference: float | None, low: float | None, high: float | None) -> str:
    """A difference with its interval: "+0.12 [+0.05, +0.19]"."""
    if difference is None:
        return "-"
    between = "" if low is None or high is None else f" [{low:+.3g}, {high:+.3g}]"
    return f"{difference:+.3g}{between}"


def look(family: str, run: str) -> str:
    """The command that shows a candidate beside production."""
    return f"remint diff {family} production {run} --html diff.html"


def approve(model: str, version: int) -> str:
    """The command that lets a version pass which waits for it."""
    return f'remint approve {model} v{version} --why "..."'
