"""How does sync code call async code wherever it is? `sync`, and event loops in threads of their own."""
