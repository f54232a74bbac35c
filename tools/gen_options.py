"""Writes the table of all options, docs/options.md, to standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from heartwire.config import FIELDS

INTRODUCTION = """\
# Options

<!-- Made from src/heartwire/config by tools/gen_options.py: `make docs/options.md`. -->

Every option `a_b` is a flag `--a-b` of `socket-server`, `heartwire serve` and `heartwire check`, an
environment variable `HEARTWIRE_A_B`, a key `a_b` of the TOML file given by `--config` (or
`HEARTWIRE_CONFIG`), and a keyword of `heartwire.Server`. A flag wins over the environment, the
environment over the file.

- Durations are seconds, or text such as `500ms`, `30s`, `5m`, `2h`; sizes are bytes, or `512KiB`, `1MiB`.
- A boolean is `--welcome` or `--no-welcome`; elsewhere `true` or `false`.
- A list is a flag given several times, an array in TOML, and comma-separated in the environment. A
  secret that contains a comma belongs in a file.
- An empty environment variable counts as not set.
- `heartwire check` takes the same options and says everything that is wrong with them.
"""


def document() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield INTRODUCTION.rstrip()
    heading = ""
    for field in FIELDS.values():
        if field.option.group != heading:
            heading = field.option.group
            yield f"\n## {heading}\n"
            yield "| option | value | default | what it does, and why that default |"
            yield "|---|---|---|---|"
        default = field.default_text()
        value = _sentence(field.expects) + (" Repeatable." if field.repeatable else "")
        about = f"{field.option.about} *{field.option.reason}*"
        yield f"| `{field.name}` | {_cell(value)} | {_cell(default)} | {_cell(about)} |"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(document())
