"""Settings that every test file shares."""

from hypothesis import HealthCheck, settings

# No time limit on an example: a busy machine is not a wrong result. The same examples every time.
settings.register_profile("lipref", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lipref")
