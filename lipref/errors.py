"""The one exception that users are meant to see, and the check of whole numbers."""

import operator


class LiprefError(ValueError):
    """Wrong input or a state that the user can mend.

    The message is one line: it names the value that was refused and the remedy. The command line prints it without a
    traceback and exits with code 2.

    Example:
        >>> from lipref import AOLConv2d, LiprefError
        >>> try:
        ...     AOLConv2d(8, 8, kernel_size=4)
        ... except LiprefError as error:
        ...     print(error)
        AOLConv2d: kernel_size=4 is even; use an odd one such as 5
    """


def whole_number(name: str, value: object, least: int = 1) -> int:
    """``value``, of any integral type but bool, as an int.

    Raises:
        LiprefError: no whole number, or one below ``least``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise LiprefError(f"{name}={value!r}: give a whole number of at least {least}")
    return number


def one_line(error: Exception) -> str:
    """The error's message without line breaks, or its type when it has none."""
    return " ".join(str(error).split()) or type(error).__name__
