"""Every message of a user's mistake names the thing, and what to do about it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADVICE = re.compile(  # a word of it, or the right value beside the wrong one
    r"\b(ask|bring|change|check|choose|clone|commit|copy|correct|create|dvc|end|free|git|give|install|look|lower|make"
    r"|mend|move|must|name|promote|publish|pull|push|put|raise|remint|remove|rename|resize|restore|retrain|run|say|see"
    r"|set|start|train|try|unset|update|use|wait|write)\b"
    r"|\b(are needed|at least|at most|cron has|known|neither .* nor|serves the pool with|such as|the newest)\b"
    r"|\bnot \{|\bto \{|GPUs: \{|lines are",
    re.IGNORECASE,
)
ELSEWHERE = re.compile(  # a name that holds advice, or the words of another program
    r"near\w*\(|_fetch|_lost|\{(advi[cs]e|again|bring|choices|elsewhere|error|expected|grammar|help|hint|known|last|mend"
    r"|next_step|reason|rest|saved\.again|self\.next_step|step|there|what|why|words|wrong)\}|str\(error\)",
    re.IGNORECASE,
)
WHOLE = "_words(error)", "_why_none(start, top.stderr)", "reason", "'; '.join(silent)"  # messages made elsewhere
NOTHING_TO_DO = "was approved already", "nothing to roll back", "nothing to go back to", "did not change"
CAUGHT = "{self.name} holds no {key}", "{self.name}/{key} is there already", "place.name"  # before anybody sees them


def kinds(trees: dict[Path, ast.Module]) -> set[str]:
    """UserError and what is derived from it."""
    known = {"UserError"}
    while True:
        found = {
            node.name
            for tree in trees.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).split(".")[-1] in known for base in node.bases)
        }
        if found <= known:
            return known
        known |= found


def messages() -> Iterator[tuple[str, str]]:
    """Where each is made, and how it reads in the code."""
    files = [path for top in ("data", "models", "flows", "infra") for path in sorted((ROOT / top).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text()) for path in files}
    known = kinds(trees)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).split(".")[-1] in known:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.args[-1])


ALL = {place: said for place, said in messages() if said not in WHOLE}


def test_all_messages_are_found():
    assert len(ALL) > 400
    assert len({place.partition(":")[0] for place in ALL}) > 100


def test_a_message_names_the_thing():
    bare = {place: said for place, said in ALL.items() if not re.search(r"\{|[A-Z]{2,}|--\w|\w+\.\w+|'.*'", said)}
    assert bare == {}


def test_a_message_says_the_next_step():
    mute = {}
    for place, said in ALL.items():
        rest = said.split(" ", 1)[-1]  # behind the name of the thing, which may hold such a word
        if not (ADVICE.search(rest) or ELSEWHERE.search(said) or any(one in said for one in (*NOTHING_TO_DO, *CAUGHT))):
            mute[place] = said
    assert mute == {}
