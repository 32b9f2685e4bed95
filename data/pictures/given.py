"""What every form of given pictures is read into: one picture after the other, each as a file of this machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Given:
    """A picture as it was given. `name` is valid Unicode, and says where in the set it lies."""

    name: str
    path: Path = Path()
    sha256: str = ""  # of the original's bytes
    label: int | str | None = None  # an index, a class's name, or none
    licence: str = ""
    reason: str = ""  # why it cannot be used, where that is known already


class Spool:
    """Pictures that lie in something else (a tar, a parquet, a bucket), each once as a file under its SHA-256."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, data: bytes) -> tuple[str, Path]:
        """Digest and file of a picture's bytes."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.folder / sha256[:2] / sha256
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return sha256, path


def printable(name: str) -> str:
    """File names may hold bytes that are no Unicode; parquet and JSON cannot."""
    return name.encode("utf-8", "backslashreplace").decode()


def label(text: str) -> int | str | None:
    """A label as it is written: a whole number is an index, nothing and -1 are no class, anything else is a name."""
    text = text.strip()
    if text in ("", "-1", "null", "None"):
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
