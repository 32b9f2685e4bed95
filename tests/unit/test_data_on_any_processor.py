"""What `data/` stores is made of operations that IEEE 754 rounds alike everywhere, and of no others."""

import ast
import hashlib
from pathlib import Path

import numpy as np
import pytest

from data.core import elementary

ROOT = Path(__file__).parents[2]
CHOSEN = {  # by the processor: kernels of BLAS and LAPACK, and of the vectorised or fused functions of NumPy and libm
    *("linalg", "dot", "vdot", "inner", "matmul", "tensordot", "einsum", "convolve", "correlate", "cov", "corr"),
    *("corrcoef", "polyfit", "fft", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "logaddexp", "pow"),
    *("power", "float_power", "cbrt", "hypot", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2", "asin"),
    *("acos", "atan", "atan2", "sinh", "cosh", "tanh", "sinc"),
}
UNSTABLE = {"argsort", "argpartition"}  # equal values come in an order of the vector width's, if not kind="stable"
LIBRARIES = {"torch", "scipy", "skimage", "sklearn", "cv2"}


def faults(source: str, name: str) -> list[str]:
    """ "file:line what" of everything in a module whose last bit the processor chooses."""
    return [f"{name}:{node.lineno} {why}" for node in ast.walk(ast.parse(source)) for why in _why(node)]


def _why(node: ast.AST):
    if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
        yield "@"
    if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Pow) and not _whole_power(node):
        yield "**"
    if isinstance(node, ast.Attribute) and node.attr in CHOSEN and _called_on(node) != "elementary":
        yield node.attr
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in UNSTABLE:
        kinds = [ast.unparse(word.value) for word in node.keywords if word.arg == "kind"]
        yield from [] if kinds == ["'stable'"] else [f"{node.func.attr} without kind='stable'"]
    if isinstance(node, ast.Import):
        yield from (f"import {one.name}" for one in node.names if one.name.split(".")[0] in LIBRARIES)
    if isinstance(node, ast.ImportFrom) and node.module:
        if node.module.split(".")[0] in LIBRARIES:
            yield f"import {node.module}"
        if node.module in ("math", "numpy"):
            yield from (f"import {one.name}" for one in node.names if one.name in CHOSEN)


def _called_on(node: ast.Attribute) -> str:
    return node.value.id if isinstance(node.value, ast.Name) else ""


def _whole_power(node) -> bool:
    """A square, which is a product, or a power of two constants, which Python reckons."""
    left, right = (node.target, node.value) if isinstance(node, ast.AugAssign) else (node.left, node.right)
    return isinstance(right, ast.Constant) and (right.value == 2 or isinstance(left, ast.Constant))


@pytest.mark.parametrize("path", sorted((ROOT / "data").rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nothing_in_data_leaves_a_last_bit_to_the_processor(path):
    assert faults(path.read_text(), path.relative_to(ROOT).as_posix()) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ahead / np.linalg.norm(ahead)", "m.py:1 linalg"),
        ("(points - place) @ forward", "m.py:1 @"),
        ("image @= weights", "m.py:1 @"),
        ("a.dot(b)", "m.py:1 dot"),
        ("np.exp(x)", "m.py:1 exp"),
        ("math.sin(x)", "m.py:1 sin"),
        ("from math import exp", "m.py:1 import exp"),
        ("x ** (1 / 2.4)", "m.py:1 **"),
        ("x ** 3", "m.py:1 **"),
        ("keys.argsort()", "m.py:1 argsort without kind='stable'"),
        ("from scipy import ndimage", "m.py:1 import scipy"),
        ("x ** 2 + 2**64 + np.argsort(x, kind='stable') + np.sqrt(x)", None),
        ("from data.core.elementary import exp", None),
    ],
)
def test_a_last_bit_of_the_processors_is_named_with_its_line(line, said):
    assert faults(line, "m.py") == ([said] if said else [])


def test_elementary_functions_are_right_and_have_the_same_bits_everywhere():
    x = np.linspace(-30, 30, 6001)
    positive = np.ldexp(np.linspace(0.5, 1, 6001), np.arange(6001) % 40 - 20)
    values = {
        "exp": (elementary.exp(x), np.exp(x)),
        "log": (elementary.log(positive), np.log(positive)),
        "power": (elementary.power(positive, 0.45), positive**0.45),
        "sin": (elementary.sin(x), np.sin(x)),
        "cos": (elementary.cos(x), np.cos(x)),
    }
    for name, (ours, right) in values.items():
        np.testing.assert_allclose(ours, right, rtol=5e-15, atol=3e-16, err_msg=name)
    assert elementary.power([0.0, 1.0], 0.6).tolist() == [0.0, 1.0]
    assert elementary.exp(-1e9) == pytest.approx(0, abs=1e-300)
    bits = hashlib.sha256(b"".join(ours.tobytes() for ours, _ in values.values())).hexdigest()
    assert bits[:16] == "d5cc16507bab6262"
