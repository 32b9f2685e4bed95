"""The manifests of infra/k8s as values, as they are written and as Kustomize makes them."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "k8s"


def written(*folders: str) -> list[dict[str, Any]]:
    """Every object in the files of these folders, without Kustomize's own."""
    files = [
        f for folder in folders for f in sorted((FOLDER / folder).glob("*.yaml")) if f.name != "kustomization.yaml"
    ]
    return [entry for file in files for entry in yaml.safe_load_all(file.read_text())]


@functools.cache
def built(folder: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    kubectl = shutil.which("kubectl")
    assert kubectl
    done = subprocess.run([kubectl, "kustomize", str(FOLDER / folder)], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def pods(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name of what makes pods -> their specification."""
    found = {}
    for entry in entries:
        spec = entry.get("spec", {})
        if entry["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            found[entry["metadata"]["name"]] = spec["template"]["spec"]
    return found


def containers(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name -> its only container."""
    made = {}
    for name, pod in pods(entries).items():
        (made[name],) = pod["containers"]
    return made
