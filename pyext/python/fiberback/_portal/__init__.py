"""Who gets a portal? The task itself, one call, or the tasks that it starts."""
