"""The one exception that a user of the lab is meant to read."""


class LabError(ValueError):
    """A mistake in the data, the settings or the output folder: its text says what to do, so no traceback is shown."""
