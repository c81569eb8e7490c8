"""How Hypothesis tests: no time limits, the same examples everywhere, a failing one printed."""

from hypothesis import HealthCheck, settings

# A busy machine is no fault of the book: neither a slow example nor slow drawing fails a test.
settings.register_profile(
    "book",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("book")
