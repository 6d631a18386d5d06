"""Seven 1-Lipschitz convolution layers on equal terms: trained, certified, and compared."""

__version__ = "0.1.0"


def __getattr__(name: str):
    """`lipref.load`, imported when it is first used: ``import lipref`` alone stays light."""
    if name == "load":
        from lipref.certification.classifier import load

        return load
    raise AttributeError(f"module 'lipref' has no attribute {name!r}")
