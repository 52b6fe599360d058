"""How does a program begin? `run`, also inside a running loop, and `enable` for a loop of others."""
