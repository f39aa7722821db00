"""What calls raise."""


class Error(RuntimeError):
    """A call that could not be made: no driver, no kernel for the GPU, a driver that refused."""


class ArgumentError(Error, ValueError):
    """An argument that a call does not take. The message begins with its name, and says its value and what would fit."""
