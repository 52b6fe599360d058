"""What of `fiberback.stats()` is zero unless something was given up, or done without."""

# Not "wakes_put_off": other code can be in a caller's context at any time, and nothing is done without.
COUNTED = (
    "stacks_leaked",
    "stacks_small",
    "stacks_not_shared",
    "loops_not_passed_on",
)


def of(stats: dict[str, int]) -> dict[str, int]:
    """Those that are not zero."""
    return {name: stats[name] for name in COUNTED if stats.get(name)}
