"""Exceptions whose message is one line for the user: what is wrong, and what to do."""


class InputError(ValueError):
    """Invalid input of the user: a path, a setting or a file.

    The command line prints the message without a traceback.
    """


class DivergedError(RuntimeError):
    """Loss that is not finite; the message names the step and the last good checkpoint."""


class StorageError(RuntimeError):
    """Failure to write a file of the run, as on a full disk; the message names the file."""
