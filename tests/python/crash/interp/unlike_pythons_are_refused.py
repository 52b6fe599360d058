# expect-stdout: fine
"""A CPython that the native module was not made for is refused by ImportError, and can import it when it is
as it should be: another minor version, and one whose coroutines have no `am_send`.
"""

import asyncio
import ctypes
import mmap
import sys
import types

if sys.platform != "linux":
    print("fine")
    sys.exit()


def refused(*words):
    try:
        import fiberback  # noqa: F401
    except ImportError as error:
        for word in words:
            assert word in str(error), error
    else:
        raise AssertionError(f"not refused: {words}")


version = ctypes.c_ulong.in_dll(ctypes.pythonapi, "Py_Version")
page = ctypes.c_void_p(ctypes.addressof(version) & -mmap.PAGESIZE)
assert ctypes.CDLL(None).mprotect(page, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE) == 0
true_version, version.value = version.value, 0x030A00F0
refused("[fiberback:other-python]", f"CPython 3.{sys.version_info[1]}", "3.10")
version.value = true_version

# `tp_as_async` is the eleventh word of a type, `am_send` the fourth of that.
slots = ctypes.c_void_p.from_address(id(types.CoroutineType) + 10 * 8).value
send = ctypes.c_void_p.from_address(slots + 3 * 8)
true_send, send.value = send.value, None
refused("[fiberback:unknown-python]", "its coroutines have no am_send")
send.value = true_send

import fiberback  # noqa: E402


async def main():
    await fiberback.ensure_portal()
    return fiberback.await_(asyncio.sleep(0, 7))


assert asyncio.run(main()) == 7
print("fine")
