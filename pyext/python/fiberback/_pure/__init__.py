"""What serves where no native module fits? The names of `_fiberback.pyi` in Python, on greenlet or on Pyodide."""
