"""What may change the bytes that a stage writes and is not in the commit: installed packages, Python, processor.

    here = environment.describe(root)
    here.digest, here.machine
    environment.differences(then, here)

A run notes its environment in its commit's message, and that of each stage where workers ran them, so that a clone,
which has only git, knows it. Nothing is imported to find out: versions are read from the names of installed packages,
features from /proc.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from data.core import portable
from flows import repository

LOCK = "requirements.lock"
TRAILER = "Environment"  # of a run's commit message
OF_STAGES = "Stage-Environments"  # the same, of a run whose stages ran on workers
BASE_FEATURES = ("avx", "avx2", "fma", "f16c", "sve", "sve2", "bf16", "asimd")
WIDE_FEATURES = ("avx512", "avx_", "amx")  # prefixes: all instruction sets that math libraries choose kernels by
WIDE_WORDS = {"bf16": "avx512_bf16", "amx": "amx_bf16"}  # by which oneDNN chooses, among AVX-512's processors
VARIABLES = (  # each chooses kernels, or how sums are split
    "GLIBC_TUNABLES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    *sorted({*portable.VARIABLES, *portable.CONTRARY} - {"CUDA_VISIBLE_DEVICES"}),
)


@dataclass(frozen=True)
class Environment:
    """Where stages run. Equal environments give equal bytes; others may."""

    lock: str  # sha256 of requirements.lock, "" without one
    python: str  # "CPython 3.11.7"
    torch: str  # build: "2.13.0+cpu"
    system: str  # "Linux glibc 2.36"
    arch: str  # "x86_64"
    cpu: str  # "AuthenticAMD family 26 model 2"
    kernels: str  # the instruction set by which torch chooses: "avx512", "avx2", "default"
    features: tuple[str, ...] = ()  # instruction sets that math libraries choose by
    gpu: str = ""  # "NVIDIA H200, driver 570.1"
    variables: Mapping[str, str] = field(default_factory=dict)  # OMP_NUM_THREADS and such, if set
    unlocked: Mapping[str, str] = field(
        default_factory=dict
    )  # packages that are not as the lock says: "1.2, locked 1.3"
    portable: bool = False  # as the parameters say: stages then take every processor for one

    @property
    def digest(self) -> str:
        return hashlib.sha256(text(self).encode()).hexdigest()

    @property
    def machine(self) -> str:
        """The class of machine in a few words: "x86_64 GenuineIntel avx512 bf16 amx", or "x86_64 portable"."""
        if self.portable:
            return f"{self.arch} portable"
        vendor = self.cpu.split(" ")[0] or "unknown"
        wide = [word for word, mark in WIDE_WORDS.items() if self.kernels == "avx512" and mark in self.features]
        return " ".join(word for word in (self.arch, vendor, self.kernels, *wide, self.gpu.split(",")[0]) if word)


@dataclass(frozen=True)
class Difference:
    """One respect in which two environments differ."""

    what: str
    then: str
    now: str

    @property
    def of_processor(self) -> bool:
        return self.what in ("arch", "cpu", "kernels", "processor features", "gpu", "portable")

    def __str__(self) -> str:
        return f"{self.what}: {self.then or 'none'} then, {self.now or 'none'} now"


def describe(root: Path, variables: Mapping[str, str] = os.environ) -> Environment:
    """The environment of a process of this machine with these variables, for the stages of the checkout `root`."""
    lock = root / LOCK
    locked = lock.read_text() if lock.exists() else ""
    found = _installed()
    processor = _processor()
    features = tuple(_features(processor.get("flags", processor.get("Features", "")).split()))
    alike = (root / "params.yaml").exists() and portable.asked(root / "params.yaml")
    variables = portable.surroundings(variables) if alike else variables
    return Environment(
        lock=hashlib.sha256(locked.encode()).hexdigest() if locked else "",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        torch=found.get("torch", ""),
        system=" ".join(word for word in (platform.system(), *platform.libc_ver()) if word),
        arch=platform.machine(),
        cpu=_cpu(processor),
        kernels=variables.get("ATEN_CPU_CAPABILITY") or _kernels(set(features)),
        features=features,
        gpu=gpu(variables),
        variables={name: variables[name] for name in VARIABLES if variables.get(name)},
        unlocked=dict(_unlocked(locked, found)),
        portable=alike,
    )


def surroundings(variables: Mapping[str, str], then: Mapping[str, str] | None) -> dict[str, str]:
    """A process's variables with thread counts and such as they were `then`; None: it is not known."""
    if then is None:
        return dict(variables)
    return {name: value for name, value in variables.items() if name not in VARIABLES} | dict(then)


def differences(then: Environment, now: Environment) -> list[Difference]:
    """In what two environments differ, in a person's words; [] if in nothing."""
    found = []
    alike = then.portable and now.portable
    for part in fields(Environment):
        if alike and part.name in ("cpu", "kernels", "features", "gpu", "variables"):
            continue
        one, other = getattr(then, part.name), getattr(now, part.name)
        if isinstance(one, Mapping):
            keys = sorted({*one, *other})
            found += [Difference(k, one.get(k, ""), other.get(k, "")) for k in keys if one.get(k) != other.get(k)]
        elif isinstance(one, tuple):
            gone, new = " ".join(f for f in one if f not in other), " ".join(f for f in other if f not in one)
            found += [Difference(f"processor {part.name}", gone, new)] if gone or new else []
        elif one != other:
            found.append(Difference(LOCK if part.name == "lock" else part.name, str(one)[:40], str(other)[:40]))
    return found


def text(environment: Environment) -> str:
    """One line of JSON; `parse` reads it back."""
    return json.dumps(asdict(environment), sort_keys=True)


def parse(line: str) -> Environment:
    """The inverse of `text`. What a later version added is left out, what it dropped is empty."""
    values: dict[str, Any] = json.loads(line)
    known = {part.name: values.get(part.name, "") for part in fields(Environment)}
    known |= {"features": tuple(values.get("features", ())), "portable": bool(values.get("portable"))}
    known |= {name: dict(values.get(name, {})) for name in ("variables", "unlocked")}
    return Environment(**known)


def trailer(environment: Environment) -> str:
    """The line of a run's commit message that says where it ran."""
    return f"{TRAILER}: {text(environment)}"


def stages_trailer(ran: Mapping[str, Environment]) -> str:
    """The line of a run's commit message that says where each stage ran, as far as that is known."""
    stages: dict[str, list[str]] = {}
    for name, where in ran.items():
        stages.setdefault(text(where), []).append(name)
    said = [{"stages": names, "environment": json.loads(where)} for where, names in stages.items()]
    return f"{OF_STAGES}: {json.dumps(said, sort_keys=True)}"


def of_commit(root: Path, commit: str) -> Environment | None:
    """Where a run's commit says that it was made, None if it says nothing."""
    found = _trailer(root, commit, TRAILER)
    return parse(found) if found else None


def of_stages(root: Path, commit: str, stages: Iterable[str]) -> dict[str, Environment]:
    """Where each stage ran by what the run's commit says; a stage of which it says nothing is left out."""
    known = of_workers(root, commit)
    if known is not None:
        return {name: known[name] for name in stages if name in known}
    whole = of_commit(root, commit)
    return dict.fromkeys(stages, whole) if whole else {}


def of_workers(root: Path, commit: str) -> dict[str, Environment] | None:
    """Where each stage ran by what the commit of a run on workers says; None if it says nothing."""
    found = _trailer(root, commit, OF_STAGES)
    if not found:
        return None
    every = [(one["stages"], parse(json.dumps(one["environment"]))) for one in json.loads(found)]
    return {name: where for names, where in every for name in names}


def _trailer(root: Path, commit: str, key: str) -> str:
    found = repository.git(root, "log", "-1", f"--format=%(trailers:key={key},valueonly,unfold)", commit).strip()
    return found.splitlines()[0] if found else ""


def _installed() -> dict[str, str]:
    """Version by normalised name, read from the names of *.dist-info: opening 260 METADATA files takes 0.5 s."""
    found: dict[str, str] = {}
    for folder in map(Path, sys.path):
        for info in folder.glob("*.dist-info") if folder.is_dir() else ():
            name, _, version = info.stem.partition("-")
            found.setdefault(_normal(name), version)
    return found


def _unlocked(locked: str, found: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for line in locked.splitlines():
        name, pin, rest = line.partition("#")[0].partition("==")
        wanted = rest.partition(";")[0].strip()
        if not pin:
            continue
        version = found.get(_normal(name.strip())) or _version(name.strip())
        if version.partition("+")[0] != wanted.partition("+")[0]:  # +cpu, +cu128: the build, noted for torch
            yield _normal(name.strip()), f"{version or 'not installed'}, locked {wanted}"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _processor() -> dict[str, str]:
    """The first processor of /proc/cpuinfo, {} where there is none."""
    try:
        block = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}


def _cpu(processor: Mapping[str, str]) -> str:
    if "vendor_id" in processor:
        return f"{processor['vendor_id']} family {processor.get('cpu family')} model {processor.get('model')}"
    if "CPU implementer" in processor:  # ARM
        return f"implementer-{processor['CPU implementer']} part {processor.get('CPU part')}"
    return platform.processor()


def _features(flags: Iterable[str]) -> list[str]:
    return sorted(flag for flag in flags if flag in BASE_FEATURES or flag.startswith(WIDE_FEATURES))


def _kernels(features: set[str]) -> str:
    """As torch chooses (aten/src/ATen/native/DispatchStub.cpp)."""
    if features >= {"avx512vl", "avx512bw", "avx512dq", "fma"}:
        return "avx512"
    return "avx2" if features >= {"avx2", "fma"} else "default"


def gpu(variables: Mapping[str, str] = os.environ) -> str:
    """The GPUs that the driver shows, "" without one or with none allowed."""
    if variables.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return ""
    models = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        models += re.findall(r"^Model:\s*(.+?)\s*$", path.read_text(), re.MULTILINE)
    version = Path("/proc/driver/nvidia/version")
    driver = re.search(r"(\d+\.\d+(\.\d+)?)\s", version.read_text()) if version.exists() else None
    return f"{', '.join(dict.fromkeys(models))}, driver {driver[1] if driver else 'unknown'}" if models else ""
