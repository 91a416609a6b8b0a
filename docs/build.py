"""Write the generated pages of the documentation. Usage: python docs/build.py [PAGE ...]"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sim.compression.recipe import Recipe
from sim.hardware.load import json_schema

FOLDER = Path(__file__).parent

_CHIP = """# Chip file reference

Written by `python docs/build.py` from the JSON Schema that checks every chip file (`sim.hardware.load.json_schema`).
A key marked with * is required; where a default is `null`, the meaning says what absence does. Beside the keys of
the file there is `extends: NAME or FILE`, which takes another chip as the start. How the parts fit together:
[Describe a chip](chip.md).
"""

_RECIPE = """# Recipe reference

Written by `python docs/build.py` from the schema that checks every recipe (`sim.compression.recipe`). A key marked with
* is required; an unknown key is an error. How to use recipes: [Compress a model](compression.md).
"""

_ACCURACY = """# Accuracy

Written by `python docs/build.py` from `dovetail validate --json`: every check that ships, with our number beside the
published or measured one. A check with a tolerance that does not hold fails the command; a check that only informs has
the verdict *info*. "Data sheet only" throughout, unless the check says calibrated. `dovetail validate --check CHECK`
computes a row again, with `--json` its note too; a row marked * is on measurements that are not part of the package and
needs their folder: `DOVETAIL_DATA=FOLDER dovetail validate --check CHECK`
([Extend it](extending.md#measured-data-of-others)). What measured devices are off by in detail:
`baselines/README.md`.
"""


def chip_reference() -> str:
    """The chip schema as one table per part."""
    schema = json_schema()
    parts = [_CHIP, _table("The file", schema)]
    parts += [_table(name.removesuffix("Spec"), part) for name, part in sorted(schema["$defs"].items())]
    return "\n".join(parts)


def recipe_reference() -> str:
    """The recipe schema: the file, then its steps by technique, then what they hold."""
    schema = Recipe.model_json_schema()
    parts = {name: part for name, part in schema["$defs"].items() if "technique" in part["properties"]}
    parts |= schema["$defs"]
    return "\n".join([_RECIPE, _table("The file", schema), *(_table(name, part) for name, part in parts.items())])


def _table(title: str, part: dict[str, Any]) -> str:
    lines = [f"\n## {title}\n"]
    if part.get("description"):
        lines.append(_cell(part["description"]) + "\n")
    if "enum" in part:
        lines.append("One of " + ", ".join(f"`{value}`" for value in part["enum"]) + ".")
        return "\n".join(lines) + "\n"
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    required = set(part.get("required", ()))
    for key, field in part.get("properties", {}).items():
        default = "" if key in required else f"`{_yaml(field.get('default'))}`"
        name = f"`{key}`{' *' if key in required else ''}"
        lines.append(f"| {name} | {_kind(field)} | {default} | {_cell(field.get('description', ''))} |")
    return "\n".join(lines) + "\n"


def _kind(field: dict[str, Any], *, outer: bool = True) -> str:
    """What may stand there, in words; examples are the key's own, not those of what it is made of, if it has any."""
    examples = ", ".join(f"`{_yaml(example)}`" for example in field.get("examples", ()))
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2].removesuffix("Spec")
        return f"[{name}](#{name.lower()})"
    if options := field.get("anyOf", field.get("oneOf")):
        inside = outer and not examples
        words = " or ".join(_kind(option, outer=inside) for option in options if option.get("type") != "null")
    elif "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    elif "const" in field:
        return f"`{field['const']}`"
    elif field.get("type") == "array":
        words = "list of " + _kind(field.get("items", {}), outer=outer and not examples)
    elif field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        words = "map to " + _kind(field["additionalProperties"], outer=outer and not examples)
    else:
        words = {"integer": "whole number", "string": "text", "boolean": "yes or no", "object": "map"}.get(
            field.get("type", ""), field.get("type", "anything")
        )
    return f"{words}, as {examples}" if outer and examples else words


def _yaml(value: Any) -> str:
    """A value as it stands in a file: text bare, the rest in one line."""
    return value if value and isinstance(value, str) else json.dumps(value)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def accuracy() -> str:
    """The table of `dovetail validate --json`, groups in the order of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "sim", "validate", "--json"], capture_output=True, text=True, check=False
    )
    document = json.loads(done.stdout)
    summary = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in document["summary"].items())
    lines = [_ACCURACY, f"Summary: {summary}.\n"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for check in document["checks"]:
        groups.setdefault(check["id"].partition(".")[0], []).append(check)
    for name, checks in groups.items():
        lines += [
            f"\n## {name}\n",
            "| check | quantity | ours | theirs | unit | error | verdict | source |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for check in checks:
            error = "" if check["rel_error"] is None else f"{100 * check['rel_error']:+.1f} %"
            name = f"`{check['id']}`{' *' if check['command'].startswith('DOVETAIL_DATA') else ''}"
            cells = (name, check["quantity"], _number(check["ours"]), _number(check["theirs"]), check["unit"], error,
                     check["verdict"], check["source"])  # fmt: skip
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    """Four digits, or all that stand before the point: 0.01234, 146,944, 1.5e+09."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e8 else f"{value:.4g}"


PAGES = {"chip-reference": chip_reference, "recipe-reference": recipe_reference, "accuracy": accuracy}


def main() -> None:
    for name in sys.argv[1:] or PAGES:
        (FOLDER / f"{name}.md").write_text(PAGES[name](), encoding="utf-8")
        print(FOLDER / f"{name}.md")


if __name__ == "__main__":
    main()
