"""Errors that a user can act on. Every message says what was wrong, where, and what to do. The CLI prints it and exits 2."""


class MMSearchError(Exception):
    """Base of all errors whose cause is the input, the config or the environment, not a bug."""


class ConfigError(MMSearchError):
    """A config file or an override is wrong."""


class NotReady(MMSearchError):
    """A command line cannot run as it is.

    Attributes:
      problems: everything that is wrong, a line each.
    """

    def __init__(self, problems: list[str]):
        super().__init__("; ".join(problems))
        self.problems = problems


class CheckpointError(MMSearchError):
    """A checkpoint is missing, damaged or belongs to another model."""


class DataError(MMSearchError):
    """A row, file or record cannot be used."""


class ImageError(DataError):
    """An image cannot be read."""


class ToolError(MMSearchError):
    """A tool call returned no result."""


class ToolUnavailable(ToolError):
    """The tools server cannot be reached."""


class ToolTimeout(ToolError):
    """The tools server did not answer before the deadline."""


class ToolFailed(ToolError):
    """The tools server answered with an error."""


class ToolRefused(ToolFailed):
    """The tools server refused what was asked (HTTP 400): the request's own fault, not the server's. `why` is its reason."""

    def __init__(self, message: str, why: str):
        super().__init__(message)
        self.why = why


class PortInUse(MMSearchError):
    """The port to listen on is in use."""


class DirectoryInUse(MMSearchError):
    """Another process writes to the work directory."""


class StorageError(MMSearchError):
    """A bucket cannot be used."""


class TrainingDiverged(MMSearchError):
    """Training cannot continue: gradients are no longer finite."""


class ChatFailed(MMSearchError):
    """A chat endpoint returned no usable reply."""


class JudgeFailed(ChatFailed):
    """The LLM judge returned no verdict."""


class Preempted(MMSearchError):
    """The process was asked to stop and has saved a state to resume from."""


class ProcessFailed(MMSearchError):
    """Another process of the run failed, so this process cannot continue."""
