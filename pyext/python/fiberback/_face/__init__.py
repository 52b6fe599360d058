"""What is the sync face of async code? Which things get one, and where their calls wait."""
