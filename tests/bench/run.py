"""Measure what the design leans on, as ratios within one run: they hold from machine to machine, seconds do not.

    python tests/bench/run.py            # or: make bench; about three minutes on two cores
    python tests/bench/run.py attention  # one of them
    python tests/bench/run.py gates --full   # as exact as the figures in the documentation
    python tests/bench/run.py --json

Each bench compares a few variants of one thing, in turns, and keeps the best time of each; the ratio is to its first
variant. Training parts run on one thread, as the stages do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

SIZE, CLASSES = 64, 10


@dataclass(frozen=True)
class Line:
    """One variant: best seconds for its piece of work, how many pieces a second, and how fast beside the first."""

    bench: str
    variant: str
    seconds: float
    rate: str
    speed: float  # seconds of the bench's first variant / seconds


def compare(bench: str, variants: Mapping[str, Callable[[], object]], pieces: int = 0, unit: str = "", rounds: int = 3,
            warm: bool | None = None) -> list[Line]:  # fmt: skip
    """Time the variants in turns, so that a busy moment meets all of them, and keep the best of each."""
    if rounds > 1 if warm is None else warm:
        for work in variants.values():
            work()
    best = dict.fromkeys(variants, float("inf"))
    for _ in range(rounds):
        for name, work in variants.items():
            began = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - began)
    first = next(iter(best.values()))
    return [
        Line(bench, name, seconds, f"{pieces / seconds:.1f} {unit}/s" if pieces else "", first / seconds)
        for name, seconds in best.items()
    ]


def rendering(scenes: int = 40) -> list[Line]:  # more would only tell the same, later
    """Scenes with one and with two worker processes, their start included."""
    from data.scenes.params import Scenes
    from data.scenes.render import stream

    p = Scenes(0, 40, SIZE, samples_per_pixel=10, held_out_share=0.1, per_shard=40)
    every = range(scenes)
    variants = {f"{n} worker{'s' * (n > 1)}": lambda n=n: list(stream(p, every, n)) for n in (1, 2)}
    return compare("rendering", variants, scenes, "scenes", rounds=1)


def precision(rounds: int = 4) -> list[Line]:
    """A training step of the tokenizer's warm-up in float32 and under bfloat16 autocast."""
    import torch

    from models.core.optim import muon_adamw
    from models.tokenizer.titok import TiTok

    torch.manual_seed(0)
    net = TiTok(image_size=SIZE, patch=8, width=128, encoder_layers=3, decoder_layers=3, heads=4, latents=32,
                token_dim=12, codes=1024, proxy_grid=8, proxy_codes=512)  # fmt: skip
    images, codes = torch.rand(16, 3, SIZE, SIZE), torch.randint(0, 512, (16 * 64,))
    optimisers = muon_adamw(net, 0.02, 1e-3)

    def step(fast: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            logits, _, commitment = net(images)
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), codes) + commitment
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()

    return compare(
        "warm-up step", {"float32": lambda: step(False), "bfloat16": lambda: step(True)}, 16, "images", rounds
    )


def attention(rounds: int = 8) -> list[Line]:
    """Attention forward and backward in bfloat16: torch's fused one, and ours of plain matmul and softmax."""
    import torch

    from models.core.layers import Attention

    ours, x = Attention(192, 4), torch.randn(32, 96, 192)

    def fused(x: torch.Tensor) -> torch.Tensor:
        q, k, v = ours.qkv(x).view(32, 96, 3, 4, 48).permute(2, 0, 3, 1, 4)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return ours.out(y.transpose(1, 2).reshape(x.shape))

    def step(forward: Callable) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            y = forward(x)
        y.float().square().mean().backward()

    return compare("attention", {"fused": lambda: step(fused), "plain": lambda: step(ours)}, rounds=rounds)


def gelu(rounds: int = 8) -> list[Line]:
    """GELU forward and backward in bfloat16: the tanh approximation and the exact one."""
    import torch

    x = torch.randn(32, 96, 768, dtype=torch.bfloat16, requires_grad=True)

    def step(kind: str) -> None:
        torch.nn.functional.gelu(x, approximate=kind).backward(x.detach())

    return compare("GELU", {"tanh": lambda: step("tanh"), "erf": lambda: step("none")}, rounds=rounds)


def sampler(rows: int = 32, rounds: int = 2) -> list[Line]:
    """Token rows drawn by MaskGIT with 8 guided steps, more and fewer, and without guidance."""
    import torch

    from models.maskgit.generator import Net as MaskGit
    from models.maskgit.params import Sampling
    from models.maskgit.sampler import sample

    torch.manual_seed(0)
    net = MaskGit(codes=1024, classes=CLASSES, length=32, dim=192, depth=4, heads=4).eval()
    labels = torch.arange(rows) % CLASSES

    def draw(steps: int, guidance: float) -> None:
        def predict(tokens: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return net(tokens, classes)

        how = Sampling(steps=steps, guidance=guidance, decay="constant", temperature=1.0)
        random = torch.Generator().manual_seed(0)
        sample(predict, labels, length=32, codes=1024, no_class=CLASSES, how=how, random=random)

    variants = {f"{steps} steps": lambda s=steps: draw(s, 4.0) for steps in (8, 4, 16)}
    return compare("sampler", {**variants, "8 steps, no guidance": lambda: draw(8, 0.0)}, rows, "images", rounds)


def loader(images: int = 400, rounds: int = 3) -> list[Line]:
    """Pictures from shards, every one checked against its digest, beside decoding the same PNG bytes from memory."""
    import numpy as np
    from PIL import Image

    from data.core import manifest, samples, shards

    random = np.random.default_rng(0)
    pictures = np.kron(random.integers(0, 255, (images, 16, 16, 3), np.uint8), np.ones((1, 4, 4, 1), np.uint8))
    encoded = [samples.encode_png(picture) for picture in pictures]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        stored = ((f"{i:08d}", {"rgb.png": png}) for i, png in enumerate(encoded))
        entries = shards.write(folder, "scenes", stored, 200)
        about = {"source": "bench", "licence": "", "label": -1, "class_name": "", "split": "train"}
        rows = [manifest.row(e, picture, **about) for e, picture in zip(entries, pictures, strict=True)]
        manifest.write(rows, folder)
        variants = {
            "PNG in memory": lambda: [np.asarray(Image.open(BytesIO(png)).convert("RGB")) for png in encoded],
            "from shards": lambda: samples.Samples(folder).images(),
        }
        return compare("loader", variants, len(encoded), "images", rounds)


def start_up(warm: bool = True) -> list[Line]:
    """What a process pays before it begins: a training stage and the report stage, beside importing torch alone."""
    variants = {
        "import torch": "import torch",
        "a training stage": "import models.proxy.train, models.core.training, lightning",
        "the report stage": "import models.report.__main__",
        "python": "pass",
    }
    return compare("process start", {name: python("-c", code) for name, code in variants.items()}, rounds=1, warm=warm)


def command_line(rounds: int = 2) -> list[Line]:
    """`remint --help`, and `remint retrain` where nothing changed, beside `dvc status` on the same small graph."""
    remint = [sys.executable, "-c", "from flows.cli import main; main()"]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        make_project(root)
        variants = {
            "dvc status": command([sys.executable, "-m", "dvc", "status"], root),
            "remint --help": command([*remint, "--help"], root),
            "remint retrain --plan": command([*remint, "retrain", "--plan"], root),
            "remint retrain, no change": command([*remint, "retrain"], root),
        }
        return compare("command line", variants, rounds=rounds)


def catalogue(versions: int = 100_000, releases: int = 1000, rounds: int = 100) -> list[Line]:
    """What `remint status` reads, and the command beside `--help`, with 100,000 model versions and 1,000 releases."""
    sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    import large_catalogue

    remint = [sys.executable, "-c", "from flows.cli import main; main()"]
    with tempfile.TemporaryDirectory() as scratch, large_catalogue.filled(versions, releases) as filled:
        root = Path(scratch)
        make_project(root)
        variants = {"remint --help": command([*remint, "--help"], root)}
        for name, one in filled.items():
            address = one.engine.url.render_as_string(hide_password=False)
            status = ["env", f"REMINT_CATALOGUE={address}", *remint, "status"]
            variants[f"remint status, {name}"] = command(status, root)
        queries = {name: large_catalogue.read(one) for name, one in filled.items()}
        return [
            *compare("status queries", queries, rounds=rounds),
            *compare("large catalogue", variants, rounds=min(rounds, 3)),
        ]


def ranks(steps: int = 6, variants: int = 3) -> list[Line]:
    """A step of the generator's training by one process, and shared by two on two cores."""
    sys.path.append(str(Path(__file__).parent))
    import shared_steps

    found = dict(shared_steps.measured(steps, variants))
    first = next(iter(found.values()))
    batch = shared_steps.BATCH
    return [Line("ranks", name, took, f"{batch / took:.0f} sequences/s", first / took) for name, took in found.items()]


def samba(longest: int = 8192, place: int = 16_384, rounds: int = 2) -> list[Line]:
    """Processor time of a token in training and drawing, by the length of its sequence: Samba and a Llama-like net."""
    sys.path.append(str(Path(__file__).parent))
    import sequences

    lengths, places = ([most // by for by in (8, 4, 2, 1)] for most in (longest, place))
    return [
        Line(f"{bench}, {name.split()[0]}", f"{name.split()[1]} tokens", took, f"{1 / took:.0f} tokens/s", first / took)
        for bench, found in (
            ("training", dict(sequences.training(lengths, rounds))),
            ("drawing", dict(sequences.decoding([place // 16, *places], rounds=2 * rounds))),
        )
        for name, took in found.items()
        for first in [found[next(each for each in found if each.split()[0] == name.split()[0])]]
    ]


def gates(draws: int = 200, resamples: int = 1000) -> list[Line]:
    """How often the committed policy lets simulated releases pass, equal ones and better ones, and what each takes."""
    sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    import gates as simulated

    found = list(simulated.calibrate(simulated.ROOT, draws, resamples))
    return [
        Line(
            "gates",
            f"{one.family}, {one.kind}",
            one.seconds,
            f"{100 * one.passed:.0f} % pass",
            found[0].seconds / one.seconds,
        )
        for one in found
    ]


def make_project(root: Path) -> None:
    """A repository of three finished stages, so that a plan for it is empty."""
    stage = {"deps": ["params.yaml"], "meta": {"pool": "cpu"}}
    names = ("one", "two", "three")
    stages = {
        name: {**stage, "cmd": f"mkdir -p artifacts && echo {name} > artifacts/{name}", "outs": [f"artifacts/{name}"]}
        for name in names
    }
    (root / "mlflow").mkdir()
    (root / "mlflow" / "promotion.yaml").write_text("{}\n")
    (root / "params.yaml").write_text("seed: 0\n")
    (root / "dvc.yaml").write_text(json.dumps({"stages": stages}))  # JSON is YAML
    (root / ".gitignore").write_text("/artifacts/\n/.remint/\n")
    for line in ("git init -q", "dvc init -q", "dvc repro -q", "git add -A", "git commit -q -m Start"):
        words = line.split()
        command([sys.executable, "-m", *words] if words[0] == "dvc" else words, root)()


def python(*arguments: str) -> Callable[[], None]:
    return command([sys.executable, *arguments], Path.cwd())


def command(words: list[str], folder: Path) -> Callable[[], None]:
    """A call of a command that shows what it printed if it fails."""
    quiet = {"DVC_NO_ANALYTICS": "true", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    author = {f"GIT_{who}_{what}": "bench@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def call() -> None:
        environment = {**os.environ, **quiet, **author}
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")

    return call


BENCHES: dict[str, Callable[..., list[Line]]] = {
    "rendering": rendering,
    "precision": precision,
    "attention": attention,
    "gelu": gelu,
    "sampler": sampler,
    "loader": loader,
    "start": start_up,
    "command": command_line,
    "catalogue": catalogue,
    "gates": gates,
    "ranks": ranks,
    "samba": samba,
}
FULL: dict[str, Callable[[], list[Line]]] = {"gates": lambda: gates(1000, 10_000)}  # four minutes


def measure(names: list[str], full: bool = False) -> Iterator[Line]:
    """Run the benches one after the other, with a line about each on standard error."""
    for name in names:
        began = time.perf_counter()
        sys.stderr.write(f"bench {name} ... ")
        sys.stderr.flush()
        yield from ({**BENCHES, **FULL} if full else BENCHES)[name]()
        sys.stderr.write(f"{time.perf_counter() - began:.1f} s\n")


def table(lines: list[Line]) -> str:
    """The lines as aligned text."""
    rows = [("bench", "variant", "ms", "rate", "speed")]
    rows += [(x.bench, x.variant, f"{1000 * x.seconds:.1f}", x.rate, f"{x.speed:.2f}x") for x in lines]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHES], metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--full", action="store_true", help=f"the long form of {', '.join(FULL)}")
    parser.add_argument("--json", action="store_true", help="print the lines as JSON")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in what is started
    lines = list(measure(arguments.names or list(BENCHES), arguments.full))
    print(json.dumps([asdict(line) for line in lines], indent=1) if arguments.json else table(lines))


if __name__ == "__main__":
    main()
