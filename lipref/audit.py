"""The former place of `lipref.certification.bounds`."""

from lipref.certification.bounds import Audit, audit, network_bound

__all__ = ["Audit", "audit", "network_bound"]
