"""Errors a user of the host software can act on. The command line prints them as one line, without a traceback."""


class HostError(Exception):
    """Something the user gave or asked for does not work; the message names the thing and the remedy."""


class ModelError(HostError):
    """A model file is damaged, or holds an operator or option that this software does not run."""


class CompileError(HostError):
    """A graph cannot be compiled for the chosen machine."""


class FetchError(HostError):
    """A model or data set could not be fetched, or is not the file that was expected."""


class DeviceError(HostError):
    """The machine stopped with an error, or did not finish."""
