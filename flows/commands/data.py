"""`remint data`: sets of pictures of one's own: add one, list them, look at one."""

import shutil
from pathlib import Path
from typing import Any

import click

from data.core.params import UserError
from flows.console import one_line_errors, print_json, say


@click.group(short_help="Add, list and show sets of pictures of your own.")
def data() -> None:
    """Give pictures of your own to tokenizer and generator: add a set, commit, then set `pictures`.

    \b
    Examples:
      remint data add birds ~/birds --size 256 --licence CC-BY-4.0
      remint retrain --set pictures=artifacts/images/birds
      remint data show birds --png birds.png
    """


@data.command(short_help="List a source's files, and write the set into params.yaml.")
@click.argument("name")
@click.argument("source")
@click.option("--size", type=int, help="Pixels per side of the pictures that models see; 256 for a new set.")
@click.option("--crop", type=click.Choice(["centre", "random"]), help="Where along the longer side they are cut.")
@click.option("--licence", help="Licence of pictures that say none themselves, best as an SPDX identifier.")
@click.option("--json", "as_json", is_flag=True, help="Print the set as JSON on standard output.")
def add(name: str, source: str, size: int | None, crop: str | None, licence: str | None, as_json: bool) -> None:
    """Make the pictures at SOURCE the set NAME: list its files with their digests in data/sets/NAME.listing, and write
    images.sets.NAME into params.yaml. A set that is there is listed again, and keeps what no option says.

    SOURCE is a folder whose folders are classes, a folder of pictures without classes, a tar or a folder of tars
    (WebDataset), a parquet or a folder of them (Hugging Face), a CSV with the columns path and label; or
    s3://bucket/prefix of any of these. One inside the checkout must be tracked, by git or by DVC (dvc add, dvc import).

    \b
    Exit codes:
      0  written; commit params.yaml and the list, which a run reads from the commit
      2  a mistake in the input (a name, a source that is no set of pictures, an option)
    """
    with one_line_errors(f"remint data add {name}"):
        from flows import repository
        from flows.pipeline import given_sets

        top = repository.find(Path.cwd()).top
        options = {"size": size, "crop": crop, "licence": licence}
        chosen = {key: value for key, value in options.items() if value is not None}
        values, files = given_sets.add(top, name, source, chosen)
        if as_json:
            print_json({"name": name, "files": files, **values})
            return
        print(f"{name}: {files} files of {values['source']}, {values['size']} pixels, crop {values['crop']}")
        say(
            f"next: git add params.yaml data/sets/{name}.listing && git commit -m 'Add {name}', then "
            f"remint retrain --set pictures=artifacts/images/{name}"
        )


@data.command("list", short_help="List the sets.")
@click.option("--json", "as_json", is_flag=True, help="Print the sets as JSON on standard output.")
def list_(as_json: bool) -> None:
    """List the sets of params.yaml, and whether their pictures lie in this checkout."""
    with one_line_errors():
        from flows import repository
        from flows.pipeline import given_sets
        from flows.show.columns import columns

        every = given_sets.every(repository.find(Path.cwd()).top)
        if as_json:
            print_json(every)
        elif not every:
            print("there are no sets of pictures yet: remint data add NAME SOURCE")
        else:
            head = ("set", "files", "size", "pictures", "classes", "source")
            print(columns([head, *(_row(one) for one in every)], right=(1, 2, 3, 4)))


@data.command(short_help="Show counts, classes, licences and what was set aside.")
@click.argument("name")
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), help="Write a contact sheet there.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON on standard output.")
def show(name: str, png: Path | None, as_json: bool) -> None:
    """Show the set NAME as its stage made it, from artifacts/images/NAME of this checkout."""
    with one_line_errors():
        from flows import repository
        from flows.pipeline import given_sets

        one = given_sets.one(repository.find(Path.cwd()).top, name)
        if png:
            if one["made"] is None:
                raise UserError(f"artifacts/images/{name} is not in this checkout; run dvc checkout, or remint retrain")
            shutil.copyfile(one["sheet"], png)
        print_json(one) if as_json else print(_text(one))


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    made = one["made"] or {}
    classes = len(made["classes"]) if made else "-"
    return (one["name"], str(one["files"]), str(one["size"]), str(made.get("count", "-")), str(classes), one["source"])


def _text(one: dict[str, Any]) -> str:
    lines = [f"{one['name']}: {one['files']} files of {one['source']}, {one['size']} pixels, crop {one['crop']}"]
    made = one["made"]
    if made is None:
        return "\n".join([*lines, "not made here yet: remint retrain, or dvc checkout of a run that made it"])
    sides = ", ".join(f"{count} {side}" for side, count in made["splits"].items())
    lines.append(f"{made['count']} pictures ({sides}), {made['enlarged']} of them enlarged")
    lines += [f"  {name or 'not stated'}: {count}" for name, count in made["licences"].items()]
    lines += [f"  class {name}: {count}" for name, count in made["counts"].items()]
    lines += [f"  no class: {made['without_class']}"] if made["without_class"] else []
    lines += [f"  set aside: {row['name']} {row['reason']}" for row in one["quarantine"]]
    return "\n".join(lines)
