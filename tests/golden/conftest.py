"""Golden losses are of float32 throughout: where a processor multiplies bfloat16, Muon would take that."""

from collections.abc import Iterator

import pytest

from models.core import device


@pytest.fixture(scope="module", autouse=True)
def in_float32() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "multiplies_bfloat16", lambda place: False)
        yield
