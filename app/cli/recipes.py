"""`loradeck jobs import`, and what `jobs submit --from` and `--set` do with a file before it is sent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from app.cli.output import EXIT_INVALID, AsJson, print_error, print_json
from app.core.errors import InvalidInput
from app.core.jobs.recipes.read import LORADECK, read_recipe
from app.core.jobs.recipes.recipe import Line, Recipe
from app.core.jobs.spec import parse_spec
from app.core.strict_yaml import load_yaml

app = typer.Typer()

From = Annotated[str, typer.Option("--from", help="Whose file it is: auto, loradeck, axolotl or llama-factory.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE in place of the file's; repeatable.")]


@app.command("import")
def import_file(
    file: Path,
    source: From = "auto",
    changes: Changes = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the job YAML here.")] = None,
    *,
    json: AsJson = False,
) -> None:
    """A training file of axolotl or LLaMA-Factory as a job YAML, with an account of every key. No dashboard is needed.

    The YAML goes to stdout or to a file, the account to stderr; exit code 2 where something has no equivalent.
    """
    recipe = read_changed(read_spec_file(file), source, changes or [])
    text, faults = None, list(recipe.faults)
    try:
        text = parse_spec(recipe.values).to_yaml()
    except InvalidInput as error:
        faults.extend(error.faults)
    if json:
        print_json({**recipe.to_json(), "faults": [fault.to_json() for fault in faults], "yaml": text})
    else:
        print_account(recipe)
        if faults:
            print_error(InvalidInput(faults))
    if faults or text is None:
        raise typer.Exit(EXIT_INVALID)
    if output is not None:
        output.write_text(text, encoding="utf-8")
    elif not json:
        print(text, end="")


def read_spec_file(path: Path) -> str:
    """A job YAML's text; `-` is stdin. Raises: InvalidInput."""
    if str(path) != "-" and not path.is_file():
        raise InvalidInput(f"{path} is not a file.", field="spec")
    try:
        return (sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8 text.", field="spec") from None


def spec_text(file: Path, source: str, changes: Sequence[str] | None) -> str:
    """The job YAML that is sent for a file. Raises: InvalidInput, with every value that has no equivalent."""
    text = read_spec_file(file)
    if source == LORADECK and not changes:
        return text
    recipe = read_changed(text, source, changes or [])
    print_account(recipe)
    if recipe.faults:
        raise InvalidInput(recipe.faults)
    return yaml.safe_dump(recipe.values, sort_keys=False, allow_unicode=True)


def read_changed(text: str, source: str, changes: Sequence[str]) -> Recipe:
    """The file with `FIELD=VALUE` over it; a fault at a field that is set is mended by that. Raises: InvalidInput."""
    recipe = read_recipe(text, source)
    given = dict(map(_read_change, changes))
    recipe.values.update(given)
    recipe.faults = [fault for fault in recipe.faults if fault.field not in given]
    return recipe


def _read_change(text: str) -> tuple[str, Any]:
    field, separator, value = text.partition("=")
    if not separator or not field.strip():
        raise InvalidInput(f"{text!r:.80} is not FIELD=VALUE.", field="--set")
    try:
        return field.strip(), load_yaml(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise InvalidInput(f"{value!r:.80} cannot be read.", field=field.strip()) from None


def print_account(recipe: Recipe) -> None:
    """What became of every key, on stderr; nothing to tell of a job's own YAML."""
    if not (recipe.mapped or recipe.left_out):
        return
    for title, lines in (("taken over", recipe.mapped), ("assumed", recipe.assumed), ("left out", recipe.left_out)):
        print(f"{title} ({len(lines)}):", file=sys.stderr)
        for line in lines:
            print(f"  {_told(line, title)}", file=sys.stderr)
    if recipe.empty:
        print(f"empty or off: {', '.join(recipe.empty)}", file=sys.stderr)


def _told(line: Line, title: str) -> str:
    return f"{line.key}: {line.value} {'→' if title == 'taken over' else '—'} {line.note}"
