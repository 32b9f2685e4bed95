"""Move MLflow's aliases to what the gates let pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from data.params import UserError
from flows.families import models_of
from flows.gates import judge
from flows.gates.decision import Decision, InProduction, Rule
from flows.gates.policy import POLICY, Gate, read_policy
from flows.registry import Registered
from flows.run import RunInfo
from flows.settings import Settings
from models import tracking
from models.registry import logged_model

PRODUCTION, PREVIOUS = "production", "previous"

__all__ = ["POLICY", "Decision", "Gate", "InProduction", "Rule", "apply", "decide", "production", "read_policy"]


def decide(registered: Sequence[Registered], run: RunInfo, settings: Settings) -> list[Decision]:
    """Decide about every registered version of a run, changing nothing."""
    client, reason = tracking.connect(settings.mlflow_uri)
    if client is None:
        raise UserError(f"cannot compare with production: {reason}")
    models = models_of(run.workspace)
    gates = read_policy(run.workspace / POLICY, [model.name for model in models])
    bound = {model.name: model.bound_to for model in models if model.bound_to}
    return judge.decide(registered, gates, production(client, [model.name for model in models]), bound, {})


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
