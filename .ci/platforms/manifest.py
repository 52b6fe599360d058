"""Writes a Cargo.toml for the crate and those of its test programs that a platform can make a difference to, with
the few development dependencies that these need: everything is built anew for each platform, std included.

usage: python3 manifest.py DIR      the manifest goes to DIR, beside a copy of Cargo.lock
"""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = """fiber pool overflow limits bridge cancel panic waker stress scope remote block_on tokio
              tracing facade main_thread""".split()
OWN_HARNESS = {"main_thread"}


def inline(value):
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{json.dumps(key)} = {inline(each)}" for key, each in value.items())
            + " }"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)


def main():
    folder = pathlib.Path(sys.argv[1])
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    for name in ["bench", "example", "test"]:
        manifest.pop(name, None)
    del manifest["workspace"]["members"], manifest["workspace"]["default-members"]
    sources = "".join(path.read_text(encoding="utf-8") for path in program_sources())
    used = set(re.findall(r"\b([a-z_0-9]+)::", sources))
    manifest["dev-dependencies"] = {
        name: needed
        for name, needed in manifest["dev-dependencies"].items()
        if name.replace("-", "_") in used
    }
    manifest["package"] |= {
        "autotests": False,
        "autobenches": False,
        "autoexamples": False,
        "readme": False,
    }
    manifest["lib"] = {"path": str(ROOT / "src/lib.rs")}
    manifest["test"] = [
        {"name": name, "path": str(ROOT / f"tests/{name}.rs"), "harness": name not in OWN_HARNESS}
        for name in PROGRAMS
    ]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "Cargo.lock", folder)
    text = "".join(f"{json.dumps(name)} = {inline(table)}\n" for name, table in manifest.items())
    (folder / "Cargo.toml").write_text(text, encoding="utf-8")


def program_sources():
    yield from (ROOT / f"tests/{name}.rs" for name in PROGRAMS)
    yield ROOT / "tests/support/mod.rs"


if __name__ == "__main__":
    main()
