"""What does `await_` do here? Every place it can be called in, and what is built on it alone."""
