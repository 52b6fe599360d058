"""What the Python half counts for `stats()`, beside what the native module does."""

from __future__ import annotations

loops_blocked = 0
"""Reports of `watch`."""
looks_given_up = 0
"""Loops whose tasks `stacks` could not list."""
