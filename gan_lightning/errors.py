"""The exceptions that are meant for people: one line that says what is wrong, and what to do."""


class InputError(ValueError):
    """A mistake in what the user gave: a path, a setting, a file. Its message is one line that says what to do.

    The command line prints the message alone, without a traceback.
    """


class DivergedError(RuntimeError):
    """Training produced a loss that is not finite; the message names the step and the last good checkpoint."""


class StorageError(RuntimeError):
    """A file of the run could not be written, as on a full disk; the message names it."""
