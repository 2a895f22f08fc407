"""`python -m vqdistill reproduce RECORD`: one result again, from the record beside it."""

import argparse
import logging
import sys
from pathlib import Path

from vqdistill.errors import InputError
from vqdistill.provenance.reproducing import reproduce


def main() -> None:
    """Status 0 where every file is as recorded, 1 where one differs or can't be made."""
    parser = argparse.ArgumentParser(prog="vqdistill")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("reproduce", help=reproduce.__doc__)
    command.add_argument("record", type=Path, help="a record.json, or its folder")
    command.add_argument("--into", type=Path, default=Path("reproduced"), metavar="FOLDER")
    values = parser.parse_args()
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.INFO)
    try:
        found = reproduce(values.record, values.into)
    except (InputError, OSError) as error:
        sys.exit(f"reproduce: {error}")
    for name, differences in found.items():
        same = differences is None
        print(f"{name}: {'the same, byte for byte' if same else 'differs from the recorded one'}")
        print("".join(f"    {line}\n" for line in differences or ()), end="")
    sys.exit(any(differences is not None for differences in found.values()))


if __name__ == "__main__":
    main()
