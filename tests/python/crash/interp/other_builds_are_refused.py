# expect-stdout: fine
"""Free-threaded and debug builds and versions that the native module was not made for are refused by
ImportError before anything private is touched, and a refused import can be tried again.

Such builds do not load a module made for the default one. One made for them, or copied there by hand,
tells them by `sys.abiflags`, which is what this changes.
"""

import asyncio
import sys

real = sys.abiflags
FREE_THREADED, DEBUG = "[fiberback:free-threaded]", "[fiberback:debug-build]"
for flags, code in (("t", FREE_THREADED), ("d", DEBUG), ("td", FREE_THREADED)):
    sys.abiflags = flags
    for _ in range(3):
        try:
            import fiberback
        except ImportError as error:
            assert code in str(error), error
        else:
            raise AssertionError(f"imported with sys.abiflags {flags!r}")
sys.abiflags = real
for name in [name for name in sys.modules if name.partition(".")[0] == "fiberback"]:
    del sys.modules[name]
import fiberback  # noqa: E402


async def main():
    await fiberback.ensure_portal()
    return fiberback.await_(asyncio.sleep(0, 7))


assert asyncio.run(main()) == 7
print("fine")
