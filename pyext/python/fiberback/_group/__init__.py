"""How does sync code wait for several things at once? Task groups, `gather` and `map`."""
