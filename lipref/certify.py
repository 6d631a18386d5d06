"""The former place of `lipref.certification.certify`."""

from lipref.certification.certify import Certificate, EvaluationError, certified_radii, certify, margins

__all__ = ["Certificate", "EvaluationError", "certified_radii", "certify", "margins"]
