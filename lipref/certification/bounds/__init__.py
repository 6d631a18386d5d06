"""The Lipschitz bound of a network from those of its layers, and what it refuses to vouch for."""

from lipref.certification.bounds.network import Audit, audit, lipschitz_bound, network_bound

__all__ = ["Audit", "audit", "lipschitz_bound", "network_bound"]
