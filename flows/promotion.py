"""Decide which registered versions go to production, and move the aliases.

The rules are those of mlflow/promotion.yaml in the run's own commit. Models that need each other (a generator and
the tokenizer whose tokens it learned) are promoted together or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data.params import UserError, build, near, read
from flows.families import models_of
from flows.registry import Registered
from flows.run import RunInfo
from flows.settings import Settings
from models import tracking
from models.metrics import metric
from models.registry import logged_model

POLICY = Path("mlflow/promotion.yaml")
PRODUCTION, PREVIOUS = "production", "previous"


@dataclass(frozen=True)
class Gate:
    """One model's section of the policy; limits and margins in each metric's own direction."""

    required: tuple[str, ...] = ()
    thresholds: dict = field(default_factory=dict)  # metric -> limit
    margins: dict = field(default_factory=dict)  # metric -> least gain over production


@dataclass(frozen=True)
class Rule:
    """One test with both its numbers; `limit` is what the candidate had to reach, production's value taken in."""

    name: str  # "psnr >= 16", "psnr >= production - 0.2", "required: psnr", "bound to tokenizer"
    passed: bool
    candidate: float | str | None
    limit: float | str | None
    production: float | None = None


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

    @property
    def failed(self) -> list[Rule]:
        return [rule for rule in self.rules if not rule.passed]


@dataclass(frozen=True)
class InProduction:
    """A version in production with its own numbers."""

    version: int
    weights: str
    parents: Mapping[str, str]
    metrics: Mapping[str, float]


def read_policy(path: Path, models: Iterable[str]) -> dict[str, Gate]:
    """Read the promotion policy; UserError names an unknown model, key or metric, or a value that is no number."""
    known = list(models)
    gates = {}
    for name, section in read(path).items():
        if name not in known:
            raise UserError(f"{path}: '{name}' is not a model of dvc.yaml{near(name, known)}")
        if section is not None and not isinstance(section, dict):
            raise UserError(f"{path}: '{name}' must be a section of key: value lines, not {section!r}")
        gate = build(Gate, section or {}, where=f"{path}: {name}")
        _check(gate, f"{path}: {name}")
        gates[name] = gate
    return gates


def decide(registered: Sequence[Registered], run: RunInfo, settings: Settings) -> list[Decision]:
    """Decide about every registered version of a run, changing nothing."""
    client, reason = tracking.connect(settings.mlflow_uri)
    if client is None:
        raise UserError(f"cannot compare with production: {reason}")
    models = models_of(run.workspace)
    gates = read_policy(run.workspace / POLICY, [model.name for model in models])
    bound = {model.name: model.bound_to for model in models if model.bound_to}
    return judge(registered, gates, production(client, [model.name for model in models]), bound)


def judge(
    registered: Sequence[Registered],
    gates: Mapping[str, Gate],
    production: Mapping[str, InProduction],
    bound: Mapping[str, str],
) -> list[Decision]:
    """The decisions, from values alone. bound: generator -> tokenizer; a model without a gate has no limits."""
    decisions = {
        one.model.name: _alone(one, gates.get(one.model.name, Gate()), production.get(one.model.name))
        for one in registered
    }
    candidates = {one.model.name: one for one in registered}
    refused: dict[str, Rule] = {}
    while True:  # a refused model may be the one that another was to stand beside
        after = {name: candidates[name] for name, one in decisions.items() if one.promoted and name not in refused}
        rules = {name: _bindings(name, after, production, bound, set(candidates)) for name in after}
        failed = {name: rule for name in after for rule in rules[name] if not rule.passed}
        if not failed:
            break
        refused |= failed
    for name, one in decisions.items():
        if name in refused:
            said = _says(refused[name])
            decisions[name] = replace(one, promoted=False, reason=said, rules=(*one.rules, refused[name]))
        elif name in after:
            decisions[name] = replace(one, rules=(*one.rules, *rules[name]))
    return list(decisions.values())


def production(client: Any, names: Iterable[str]) -> dict[str, InProduction]:
    """What the alias `production` points at, for each model that has it."""
    found = {}
    for registered in client.search_registered_models(max_results=1000):
        number = dict(registered.aliases).get(PRODUCTION)
        if registered.name not in names or number is None:
            continue
        version = client.get_model_version(registered.name, number)
        parents = {k.removeprefix("parent."): v for k, v in version.tags.items() if k.startswith("parent.")}
        metrics = {m.key: m.value for m in logged_model(client, version).metrics or []}
        weights = version.tags.get(tracking.WEIGHTS, "")
        found[registered.name] = InProduction(int(number), weights, parents, metrics)
    return found


def apply(decisions: Sequence[Decision], run: RunInfo, settings: Settings) -> None:
    """Move the aliases of the promoted versions, and note every decision on its version."""
    client, reason = tracking.connect(settings.mlflow_uri)
    if client is None:
        raise UserError(f"cannot move aliases: {reason}")
    for decision in decisions:
        name, version = decision.model, str(decision.version)
        client.set_model_version_tag(name, version, "decision", decision.reason)
        if not decision.promoted:
            continue
        if decision.replaces is not None:
            client.set_registered_model_alias(name, PREVIOUS, str(decision.replaces))
        client.set_registered_model_alias(name, PRODUCTION, version)


def _alone(one: Registered, gate: Gate, now: InProduction | None) -> Decision:
    """A version judged by its own gate."""
    name, version = one.model.name, one.version
    if now is not None and now.weights == one.weights:
        return Decision(name, version, False, f"v{now.version} is in production already", weights=one.weights)
    rules = (*_required(one, gate), *_limits(one, gate), *(_margins(one, gate, now) if now else ()))
    failed = [rule for rule in rules if not rule.passed]
    first = "first release" if now is None else f"replaces v{now.version}"
    reason = "; ".join(_says(rule) for rule in failed) or first
    return Decision(name, version, not failed, reason, rules, now.version if now else None, one.weights)


def _required(one: Registered, gate: Gate) -> list[Rule]:
    return [Rule(f"required: {name}", name in one.metrics, one.metrics.get(name), "a number") for name in gate.required]


def _limits(one: Registered, gate: Gate) -> list[Rule]:
    return [_reaches(one, name, limit, f"{limit:g}", None) for name, limit in gate.thresholds.items()]


def _margins(one: Registered, gate: Gate, now: InProduction) -> list[Rule]:
    """Candidate at least as good as production plus the margin; nothing to compare where production has no number."""
    rules = []
    for name, margin in gate.margins.items():
        if name not in now.metrics:
            continue
        gain = margin if metric(name).better == "higher" else -margin
        words = f"production {'-' if gain < 0 else '+'} {abs(gain):g}"
        rules.append(_reaches(one, name, now.metrics[name] + gain, words, now.metrics[name]))
    return rules


def _reaches(one: Registered, name: str, limit: float, words: str, production: float | None) -> Rule:
    value = one.metrics.get(name)
    higher = metric(name).better == "higher"
    passed = value is not None and (value >= limit if higher else value <= limit)  # NaN passes nothing
    return Rule(f"{name} {'>=' if higher else '<='} {words}", passed, value, limit, production)


def _bindings(
    name: str,
    after: Mapping[str, Registered],
    production: Mapping[str, InProduction],
    bound: Mapping[str, str],
    candidates: set[str],
) -> list[Rule]:
    """Whether `name` would stand in production beside exactly the weights it was trained with, or that need it.

    after: the versions about to move. A tokenizer also waits for a generator of its own run that did not pass.
    """
    rules = []
    for child, parent in bound.items():
        if name not in (child, parent):
            continue
        one, other = after.get(child) or production.get(child), after.get(parent) or production.get(parent)
        title = f"bound to {parent}" if name == child else f"carries {child}"
        if one is not None:
            wanted, there = one.parents.get(parent, ""), other.weights if other else ""
            rules.append(Rule(title, wanted == there, f"{parent} {wanted[:12]}", f"{parent} {there[:12] or 'none'}"))
        elif child in candidates:
            rules.append(Rule(title, False, f"{child} not promoted", f"{child} promoted"))
    return rules


def _says(rule: Rule) -> str:
    """A failed rule with both numbers, for a table: "psnr >= 16 failed: 14.2"."""
    if rule.candidate is None:
        return f"{rule.name} failed: not measured"
    if isinstance(rule.candidate, str):
        return f"{rule.name} failed: {rule.candidate} against {rule.limit}"
    against = "" if rule.production is None else f" against {rule.production:.4g} in production"
    return f"{rule.name} failed: {rule.candidate:.4g}{against}"


def _check(gate: Gate, where: str) -> None:
    """Metric names must be declared, limits must be numbers."""
    from models.metrics import METRICS

    for part in ("required", "thresholds", "margins"):
        entries = getattr(gate, part)
        for name in entries:
            try:
                metric(name)
            except KeyError:
                raise UserError(f"{where}.{part}: '{name}' is not a metric{near(name, METRICS)}") from None
            value = entries[name] if part != "required" else 0
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"{where}.{part}.{name} must be a number, not {value!r}")
