"""All sections of params.yaml at once: each as its stage will read it, then what only several of them together show.

    python -m models.sections

A run calls this in its worktree before anything starts, so that the commit's own code judges its parameters. Nothing
here imports torch: it takes a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data.core import entry, params
from data.core.params import UserError
from data.photos import sources
from data.photos.params import Photos
from data.pictures import check as given
from data.pictures.params import Set
from data.scenes.params import Scenes
from data.validate.params import Validate
from models.core.learning import STARTING
from models.depth import params as depth
from models.generator import kinds
from models.generator import params as generator
from models.proxy.params import ProxyParams
from models.tokenizer import params as tokenizer

FILE = Path("params.yaml")


def _of_generator(kind: str) -> type:
    found: type = kinds.params(kinds.check(kind, "generator: ")).Params
    return found


# The first that fits; * is a kind, of which there may be several, each perhaps with parameters of its own.
SECTIONS: dict[str, type | Callable[[str], type]] = {
    "scenes": Scenes,
    "photos": Photos,
    "images.sets.*": Set,
    "validate": Validate,
    "proxy": ProxyParams,
    "warmup": tokenizer.WarmUpParams,
    "tokenizer": tokenizer.FineTuneParams,
    "tokens": tokenizer.EncodeParams,
    "generator.*": _of_generator,
    "depth.teacher": depth.TrainParams,
    "depth.labels": depth.LabelParams,
    "depth.student.*": depth.TrainParams,
    "evaluate.tokenizer": tokenizer.EvaluateParams,
    "evaluate.depth": depth.EvaluateParams,
    "evaluate.*": generator.EvaluateParams,
}


def check(path: str | Path = FILE) -> dict[str, Any]:
    """Every section of the file as its stage reads it, by name; UserError for the first that no stage could use.

    Sections that are not there are not asked for: what a stage needs, dvc.yaml says.
    """
    return judge(params.read(path), path)


def judge(whole: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Like `check`, from the file's values."""
    made: dict[str, Any] = {name: params.pick(cls, name, whole, path) for name, cls in present(whole)}
    chosen = str(whole.get("pictures", "")).removeprefix("artifacts/images/")
    for wrong in together(made, f"images.sets.{chosen}" if f"images.sets.{chosen}" in made else "scenes"):
        raise UserError(f"{path}: {wrong}")
    return made


def present(whole: Mapping[str, Any]) -> Iterator[tuple[str, type]]:
    """The sections that a file has, with their types."""
    found: dict[str, type] = {}
    for pattern, cls in SECTIONS.items():
        *above, last = pattern.split(".")
        place: Any = whole
        for part in above:
            place = place.get(part, {}) if isinstance(place, Mapping) else {}
        if isinstance(place, Mapping):
            names = place if last == "*" else [last] if last in place else []
            for name in names:
                found.setdefault(".".join([*above, name]), cls if isinstance(cls, type) else cls(name))
    yield from found.items()


def together(made: Mapping[str, Any], pictures: str = "scenes") -> Iterator[str]:
    """What is wrong between sections that are right alone; `pictures` is that of what tokenizer and generator see."""
    scenes, photos = made.get("scenes"), made.get("photos")
    students = {name: p for name, p in made.items() if name.startswith("depth.student.")}
    if scenes and photos and students and scenes.size != photos.size:
        yield f"photos.size is {photos.size} and scenes.size {scenes.size}; depth students learn from both, of one size"
    for name, p in made.items():
        if isinstance(p, depth.TrainParams):
            for pool, sized in (("scenes", scenes), ("photos", photos)):
                if sized and sized.size % p.net.patch_size:
                    yield f"{pool}.size is {sized.size}, no multiple of {name}.net.patch_size ({p.net.patch_size})"
    if pictures in made:
        yield from _tokenized(made, pictures, made[pictures].size)
    if scenes and pictures == "scenes":
        yield from _started(made, scenes)


def _tokenized(made: Mapping[str, Any], pictures: str, size: int) -> Iterator[str]:
    """What does not fit pictures of this size."""
    proxy, warm_up, critic = (made.get(name) for name in ("proxy", "warmup", "tokenizer"))
    if warm_up and size % warm_up.patch:
        yield f"{pictures}.size is {size}, no multiple of warmup.patch ({warm_up.patch})"
    if proxy and size % proxy.downscale:
        yield (
            f"{pictures}.size is {size}, no multiple of the proxy's {proxy.downscale} (proxy.stem "
            f"{proxy.stem}, doubled by each of {len(proxy.channels)} proxy.channels but one)"
        )
    if critic and 2**critic.critic_stages > size:
        yield (
            f"tokenizer.critic_stages is {critic.critic_stages}: halved so often, nothing is left of {pictures}.size "
            f"{size}; at most {size.bit_length() - 1}"
        )


def _started(made: Mapping[str, Any], scenes: Scenes) -> Iterator[str]:
    """Codebooks that are larger than what they start from; how many pictures a given set has, its list alone knows."""
    proxy, warm_up = made.get("proxy"), made.get("warmup")
    if proxy:
        yield from _too_few("proxy", proxy.codes, scenes.count, (scenes.size // proxy.downscale) ** 2, "places")
    if warm_up:
        yield from _too_few("warmup", warm_up.codes, scenes.count, warm_up.latents, "latents")


def _too_few(section: str, codes: int, scenes: int, places: int, each: str) -> Iterator[str]:
    found = min(scenes, STARTING) * places
    if found < codes:
        yield f"{section}.codes is {codes}, but k-means has {found} vectors to start from: {each} of {scenes} scenes"


def main() -> None:
    photos = check().get("photos")
    if photos:
        sources.located(photos.source)
    given.check()


if __name__ == "__main__":
    entry.run(main)
