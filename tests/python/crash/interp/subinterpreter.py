# expect-stdout: refused
"""A sub-interpreter importing fiberback is refused by ImportError, and nothing breaks."""

import sys

import fiberback  # noqa: F401 - loaded here first

CODE = """
try:
    import fiberback._fiberback
except ImportError as error:
    # In our words, or before that in the interpreter's own (from 3.12 on, where it has its own GIL).
    if "[fiberback:sub-interpreter]" not in str(error):
        assert "does not support loading in subinterpreters" in str(error), error
else:
    raise SystemError("not refused")
"""

try:
    import _interpreters as interpreters
except ImportError:
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        print("refused")
        sys.exit()

interpreter = interpreters.create()
path = f"import sys; sys.path[:] = {sys.path!r}\n"
result = interpreters.run_string(interpreter, path + CODE)
assert result is None, result
interpreters.destroy(interpreter)
print("refused")
