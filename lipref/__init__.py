"""Seven 1-Lipschitz convolution layers on equal terms: trained, certified, and compared."""

__version__ = "0.1.0"
