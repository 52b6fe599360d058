"""What the Python half counts for `stats()`, beside what the native module does."""

from __future__ import annotations

loops_blocked = 0
"""Reports of `watch`."""
loops_unwatched = 0
"""Loops that `watch` cannot ask whether they go on."""
looks_given_up = 0
"""Loops whose tasks `stacks` could not list."""
