"""The exceptions that users are meant to see, each told in one line."""


class InputError(ValueError):
    """Bad input: what was found, what was expected, what to do."""


def make_anew(path: object) -> str:
    """The advice where a file that a step wrote can't be used: Snakemake makes it anew whether or
    not it is there, and all that depends on it after that."""
    return f"make it anew: add --force {path} to your command, then give the command without it"


class TrainingError(RuntimeError):
    """A training that can't go on: where it stood, and what was good last."""
