"""Pictures as files whose bytes depend on the picture alone."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lipref.tensor_files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# No dates and no versions, so that a picture that has not changed is the same file.
_FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "pdf": {
        "metadata": {"Creator": "lipref", "Producer": "matplotlib", "CreationDate": None, "ModDate": None},
    },
}


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem.png`` (200 dpi) and ``stem.pdf`` (fonts embedded as TrueType), each atomically.

    With the same versions of the libraries, the same picture gives the same bytes.

    Args:
        figure: The picture.
        stem: The path without suffix; dots in its name are kept.

    Returns:
        The two paths, PNG first.

    Raises:
        LiprefError: a file cannot be written.
    """
    stem = Path(stem)
    paths = []
    for suffix, options in _FORMATS.items():
        buffer = BytesIO()
        figure.savefig(buffer, format=suffix, **options)
        path = stem.with_name(f"{stem.name}.{suffix}")
        replace_file(path, buffer.getvalue())
        paths.append(path)
    return paths
