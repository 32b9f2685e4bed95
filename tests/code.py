"""The code of the stages, put where a test runs one: a stage takes none from anywhere but its working directory."""

from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]


def put(folder: Path) -> None:
    """Link `data` and `models` into a folder; processes of one test may do so at once."""
    for name in ("data", "models"):
        with suppress(FileExistsError):
            (folder / name).symlink_to(ROOT / name)
