"""Lists of the photographs that a run is given, by digest, in its worktree and so in its commit.

A list is a small file that DVC can read, whatever lies in the folder that it lists and whatever that is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.core import digests
from data.core.params import UserError
from data.photos import listing, sources
from flows.pipeline import parameters
from flows.settings import Settings

LIST = Path("data/incoming.arrivals")
FOLDER = Path("data/own.listing")
SOURCE = "photos.source"
PER_PHOTO = 16  # tiles of each photograph, where params.yaml names no number


def put(root: Path, settings: Settings) -> list[str]:
    """The assignments that make a run use the photographs that the settings name; the list of those that arrived is
    written into its worktree.

    UserError if the settings name two sources.
    """
    if not settings.incoming:
        return [f"{SOURCE}={FOLDER.as_posix()}"] if settings.photos else []  # `listed` writes it
    from flows.arrivals import batches

    if settings.photos is not None:
        raise UserError(
            "REMINT_PHOTOS and REMINT_INCOMING both say where photographs come from; unset one of them "
            "(what REMINT_PHOTOS names can be put into params.yaml, photos.source: what arrives is added to it)"
        )
    log = batches.open(settings)
    every = log.read()
    if not any(batch.arrived for batch in every):
        return []
    (root / LIST).write_text(log.text(every), encoding="utf-8")
    known: Mapping[str, Any] = parameters.read(root).get("photos", {})
    per_photo = [f"photos.per_photo={PER_PHOTO}"] if known.get("per_photo") is None else []
    return [f"photos.source={LIST.as_posix()}", *per_photo]


def listed(root: Path, settings: Settings, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes of a run's parameters; where its photographs lie in a folder, a list of the files is written into
    the worktree, and takes the folder's place. UserError if photos.source is nothing to read photographs from.
    """
    made = dict(changes)
    source = made.get(SOURCE, (parameters.read(root).get("photos") or {}).get("source"))
    if settings.photos is not None and source == FOLDER.as_posix():
        place = settings.photos.expanduser().absolute()
        if not _is_folder(place):
            raise UserError(f"REMINT_PHOTOS={settings.photos}: there is no such folder; name another, or unset it")
    elif isinstance(source, str) and source and _is_folder(root / Path(source).expanduser()):
        place = root / Path(source).expanduser()
    else:
        if isinstance(source, str):
            sources.located(source, root)
        return made
    inside = place.is_relative_to(root)
    if inside:
        entries, folder = listing.of(place), Path("..", place.relative_to(root))  # as seen from where the list lies
    else:
        with _digests(settings, place) as digest:
            entries, folder = listing.of(place, digest), place
    if not entries:
        raise UserError(f"photos.source: {place} holds no files; put JPEG, PNG, WebP or TIFF photographs there")
    (root / FOLDER).parent.mkdir(exist_ok=True)
    (root / FOLDER).write_text(listing.text(str(folder), entries), encoding="ascii")
    return made if source == FOLDER.as_posix() else made | {SOURCE: FOLDER.as_posix()}


def lists(root: Path) -> list[str]:
    """The lists that a worktree holds."""
    return [path.as_posix() for path in (LIST, FOLDER) if (root / path).exists()]


def _is_folder(place: Path) -> bool:
    try:
        return place.is_dir()
    except OSError:  # nobody may look there, or the name is too long
        return False


@contextmanager
def _digests(settings: Settings, folder: Path) -> Iterator[Callable[[Path], str]]:
    """Reads of a folder's files only those that changed since the last look."""
    from flows.arrivals.incoming import Item, memo, stamp

    with memo(settings.home / "photographs.db", ascii(str(folder))) as seen:

        def digest(path: Path) -> str:
            about = path.stat()
            item = Item("", str(path), about.st_size, stamp(about))
            if (known := seen.digest(item)) is None:
                known = digests.sha256(path)
                seen.note(item, known)
            return known

        yield digest
