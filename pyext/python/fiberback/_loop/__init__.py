"""What does it need of the event loop? Which one runs, where, and how it goes on while callers wait."""
