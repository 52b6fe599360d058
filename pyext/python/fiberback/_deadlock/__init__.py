"""Can this wait ever end? Circles of tasks, and loops blocked by the thread that waits for them."""
