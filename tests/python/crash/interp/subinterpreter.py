# expect-stdout: refused
"""A sub-interpreter importing fiberback is refused by ImportError, and nothing breaks."""

import sys

import fiberback  # noqa: F401 - loaded here first

CODE = """
try:
    import fiberback._fiberback
except ImportError as error:
    pass
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
