"""Checks what a wheel is made of, whatever system and processor it is for, without tools of theirs.

usage: python3 check-wheel.py WHEEL MINOR PLATFORM      e.g. ... 3.14 manylinux_2_28_aarch64
       prints what it is; exit code 1 and a sentence if it is not right

It is for this CPython and platform alone; the native module is for the platform's processor, needs no libraries but
those that every system of the kind has, and as an ELF file has no text relocations and keeps frame pointers
(PEP 831; Windows unwinds by tables); and it is small. Which symbols of the C library it needs, maturin looks at.
"""

from __future__ import annotations

import pathlib
import re
import struct
import sys
import zipfile

LIMIT = 2_000_000  # bytes of the wheel
LEAST_KEPT = 300  # functions that set up a frame pointer
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}  # elf.h
PE_X86_64 = 0x8664
PT_LOAD, PT_DYNAMIC = 1, 2
DT_NULL, DT_NEEDED, DT_STRTAB, DT_TEXTREL, DT_FLAGS, DF_TEXTREL = 0, 1, 5, 22, 30, 4

GLIBC = re.compile(r"lib(c|m|dl|rt|pthread|gcc_s)\.so\.\d+|ld-linux.*\.so\.\d+")
MUSL = re.compile(r"libc\.so")
# Beside the interpreter's own.
WINDOWS = re.compile(
    r"(kernel32|ntdll|msvcrt|userenv|ws2_32|bcrypt|bcryptprimitives|advapi32|psapi)\.dll|api-ms-win-.*\.dll"
)


class Wrong(Exception):
    pass


def text(image: bytes, offset: int) -> str:
    return image[offset : image.index(b"\0", offset)].decode()


def elf(image: bytes, machine: int) -> tuple[set[str], bytes]:
    """The libraries that it needs, and its code."""
    if image[:6] != b"\x7fELF\x02\x01":
        raise Wrong("is no 64-bit ELF file")
    if struct.unpack_from("<H", image, 18)[0] != machine:
        raise Wrong("is for another processor")
    phoff, shoff = struct.unpack_from("<QQ", image, 32)
    phentsize, phnum, shentsize, shnum, shstrndx = struct.unpack_from("<HHHHH", image, 54)
    loads, dynamic = [], []
    for index in range(phnum):
        kind, _, offset, address, _, size = struct.unpack_from(
            "<IIQQQQ", image, phoff + index * phentsize
        )
        if kind == PT_LOAD:
            loads.append((address, offset, size))
        elif kind == PT_DYNAMIC:
            for tag, value in struct.iter_unpack("<QQ", image[offset : offset + size // 16 * 16]):
                if tag == DT_NULL:
                    break
                dynamic.append((tag, value))
    if any(tag == DT_TEXTREL or (tag == DT_FLAGS and value & DF_TEXTREL) for tag, value in dynamic):
        raise Wrong("has text relocations")
    (strings,) = (
        offset + value - address
        for tag, value in dynamic
        if tag == DT_STRTAB
        for address, offset, size in loads
        if address <= value < address + size
    )
    needed = {text(image, strings + value) for tag, value in dynamic if tag == DT_NEEDED}
    names = struct.unpack_from("<Q", image, shoff + shstrndx * shentsize + 24)[0]
    for index in range(shnum):
        section = shoff + index * shentsize
        if text(image, names + struct.unpack_from("<I", image, section)[0]) == ".text":
            offset, size = struct.unpack_from("<QQ", image, section + 24)
            return needed, image[offset : offset + size]
    raise Wrong("has no code")


def pe(image: bytes) -> set[str]:
    """The libraries that it needs."""
    start = struct.unpack_from("<I", image, 0x3C)[0]
    if image[start : start + 4] != b"PE\0\0":
        raise Wrong("is no PE file")
    machine, sections = struct.unpack_from("<HH", image, start + 4)
    if machine != PE_X86_64:
        raise Wrong("is for another processor")
    optional = start + 24
    table = optional + struct.unpack_from("<H", image, start + 20)[0]
    places = []
    for index in range(sections):
        virtual_size, address, size, offset = struct.unpack_from(
            "<IIII", image, table + index * 40 + 8
        )
        places.append((address, max(virtual_size, size), offset))

    def at(address: int) -> int:
        return next(
            offset + address - begin
            for begin, size, offset in places
            if begin <= address < begin + size
        )

    needed = set()
    entry = at(struct.unpack_from("<I", image, optional + 112 + 8)[0])
    while name := struct.unpack_from("<I", image, entry + 12)[0]:
        needed.add(text(image, at(name)).lower())
        entry += 20
    return needed


def functions_with_frame_pointer(code: bytes, machine: str) -> int:
    if machine == "x86_64":  # push %rbp; mov %rsp, %rbp
        return code.count(b"\x55\x48\x89\xe5")
    # `mov x29, sp` is `add x29, sp, #0`.
    words = struct.iter_unpack("<I", code[: len(code) // 4 * 4])
    return sum(word & 0xFFC003FF == 0x910003FD for (word,) in words)


def check(wheel: pathlib.Path, minor: str, platform: str) -> str:
    tag = "cp" + minor.replace(".", "")
    # Several names of one platform are joined by dots (PEP 425).
    if not re.fullmatch(
        rf"fiberback-[^-]+-{tag}-{tag}-([^-]+\.)?{platform}(\.[^-]+)?\.whl", wheel.name
    ):
        raise Wrong(f"is not a wheel of CPython {minor} alone for {platform}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        modules = [
            name for name in names if re.fullmatch(r"fiberback/_fiberback\..*(so|pyd)", name)
        ]
        if len(modules) != 1:
            raise Wrong(f"has not one native module: {modules}")
        for wanted in ["fiberback/py.typed", "fiberback/_fiberback.pyi", "fiberback/__init__.py"]:
            if wanted not in names:
                raise Wrong(f"has no {wanted}")
        image = archive.read(modules[0])
    if platform == "win_amd64":
        needed, kept = pe(image), None
        interpreter = f"python{minor.replace('.', '')}.dll"
        if interpreter not in needed:
            raise Wrong(f"does not use {interpreter}")
        others = {name for name in needed if not WINDOWS.fullmatch(name)} - {interpreter}
    else:
        machine = next(name for name in ELF_MACHINES if platform.endswith("_" + name))
        needed, code = elf(image, ELF_MACHINES[machine])
        kept = functions_with_frame_pointer(code, machine)
        provided = GLIBC if platform.startswith("manylinux") else MUSL
        others = {name for name in needed if not provided.fullmatch(name)}
        # CPython ends daemon threads by the unwinder that `pthread_exit` uses: two would read each other's structures.
        if provided is GLIBC and "libgcc_s.so.1" not in needed:
            raise Wrong("has an unwinder of its own")
    if others:
        raise Wrong(f"needs {', '.join(sorted(others))}")
    if kept is not None and kept <= LEAST_KEPT:
        raise Wrong(f"is built without frame pointers (only {kept} functions keep one)")
    if wheel.stat().st_size >= LIMIT:
        raise Wrong(f"is larger than {LIMIT / 1e6} MB")
    return f"{wheel.name}: {wheel.stat().st_size // 1000} kB, needs {', '.join(sorted(needed))}"


if __name__ == "__main__":
    path = pathlib.Path(sys.argv[1])
    try:
        print(check(path, *sys.argv[2:]))
    except Wrong as wrong:
        sys.exit(f"{path.name} {wrong}")
