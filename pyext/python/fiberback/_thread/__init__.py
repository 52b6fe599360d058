"""How does a thread without a loop wait? On the loop it works for, or on a runner of its own."""
