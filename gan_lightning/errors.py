"""Exceptions whose message is one line for the user: what is wrong, and what to do."""


class InputError(ValueError):
    """Invalid input of the user: a path, a setting or a file.

    The command line prints the message without a traceback.
    """


class DivergedError(RuntimeError):
    """Loss that is not finite; the message names the step and the last good checkpoint."""


class StorageError(RuntimeError):
    """Failure to write a file of the run, as on a full disk; the message names the file."""


def mistake_behind(error: BaseException | None) -> InputError | DivergedError | StorageError | None:
    """Return the error meant for the user, if any: jsonargparse wraps those of constructors in errors of its own."""
    while error is not None and not isinstance(error, InputError | DivergedError | StorageError):
        error = error.__cause__ or error.__context__
    return error
