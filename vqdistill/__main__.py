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
    command.add_argument("record", type=Path, help="a record.json")
    command.add_argument("--into", type=Path, default=Path("reproduced"), metavar="FOLDER")
    values = parser.parse_args()
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.INFO)
    try:
        same = reproduce(values.record, values.into)
    except (InputError, OSError) as error:
        sys.exit(f"reproduce: {error}")
    for name, equal in same.items():
        print(f"{name}: {'the same, byte for byte' if equal else 'differs from the recorded one'}")
    sys.exit(not all(same.values()))


if __name__ == "__main__":
    main()
