"""Settings that every test file shares."""

from hypothesis import HealthCheck, settings

# No time limit on an example: a busy machine is not a wrong result. The same examples every time.
settings.register_profile("lipref", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lipref")


def pytest_collection_modifyitems(items):
    """The longest tests first, so that no process is left with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
