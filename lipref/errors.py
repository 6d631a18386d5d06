"""The one exception that users are meant to see."""


class LiprefError(ValueError):
    """Wrong input or a state that the user can mend.

    The message is one line: it names the value that was refused and the remedy. The command line prints it without a
    traceback and exits with code 2.
    """
