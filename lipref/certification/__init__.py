"""Lipschitz bounds of networks, certified radii, and trained networks as certified classifiers."""
