"""The exceptions that users are meant to see, each told in one line."""


class InputError(ValueError):
    """Bad input: what was found, what was expected, what to do."""


class TrainingError(RuntimeError):
    """A training that can't go on: where it stood, and what was good last."""
