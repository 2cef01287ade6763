"""Exceptions with one-line messages for the user, which state the problem and the solution."""


class InputError(ValueError):
    """Invalid input by the user: a path, a setting or a file.

    The command line prints the message without a traceback.
    """


class DivergedError(RuntimeError):
    """Loss that is not finite; the message names the step and the last good checkpoint."""


class StorageError(RuntimeError):
    """Failure to write a file of the run, as on a full disk; the message names the file."""


class RankError(RuntimeError):
    """Failure of another rank of the job, which prints the reason itself.

    Attributes:
        status: Exit status of all ranks.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


EXTRAS = {
    "litdata": "streaming",
    "tensorboard": "tensorboard",
    "timm": "extractors",
    "onnxruntime": "extractors",
    "onnxscript": "onnx",
    "spandrel": "upscale",
}  # optional packages, and the extras that install them


def mistake_behind(error: BaseException | None) -> InputError | DivergedError | StorageError | None:
    """Return the error meant for the user, if any, because jsonargparse wraps errors of constructors in its own."""
    found = error
    while found is not None and not isinstance(found, InputError | DivergedError | StorageError):
        found = found.__cause__ or found.__context__
    return found or missing_package(error)


def missing_package(error: BaseException | None) -> InputError | None:
    """Return an error that names the extra to install if a missing optional package caused an error; otherwise None."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__
    for package, extra in EXTRAS.items() if error is not None else ():
        if package in str(error):
            return InputError(f"{package} is not installed: pip install 'gan-lightning[{extra}]'")
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class if it has none."""
    return (str(error).strip() or repr(error)).splitlines()[0]
