"""What a user of the lab is meant to read: mistakes, and the word of a cluster that its time is up."""


class LabError(ValueError):
    """A mistake in the data, the settings or the output folder: its text says what to do, so no traceback is shown."""


class Terminated(BaseException):
    """SIGTERM came during training, as schedulers send it: not a failure of the run, which goes on another time."""
