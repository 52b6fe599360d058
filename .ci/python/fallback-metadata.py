"""The `pyproject.toml` of the wheel without the native module, of that of the wheels with it: another build
backend, greenlet as a requirement, and the version, which maturin takes from Cargo.

usage: fallback-metadata.py PYPROJECT VERSION
"""

import json
import sys
import tomllib

BACKEND = """\
[build-system]
requires = ["hatchling>=1.27,<2"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
packages = ["fiberback"]
"""
# PyPy has it built in, and Pyodide switches stacks itself. Free-threaded builds need the newest.
REQUIRES = [
    "greenlet>=3.1; platform_python_implementation != 'PyPy' and sys_platform != 'emscripten'",
]
CLASSIFIERS = [
    "Operating System :: OS Independent",
    "Programming Language :: Python :: Implementation :: PyPy",
]


def table(name, values):
    """Of TOML: keys (which may have dots in them), strings and lists of them are written as in JSON."""
    lines = [f"[{name}]"]
    tables = []
    for key, value in values.items():
        if isinstance(value, dict):
            tables += table(f"{name}.{json.dumps(key)}", value)
        else:
            lines.append(f"{json.dumps(key)} = {json.dumps(value)}")
    return [*lines, "", *tables]


def main(path, version):
    with open(path, "rb") as file:
        project = tomllib.load(file)["project"]
    project["dynamic"].remove("version")
    if not project["dynamic"]:
        del project["dynamic"]
    project["version"] = version
    project["dependencies"] = [*project.get("dependencies", []), *REQUIRES]
    kept = [
        each
        for each in project["classifiers"]
        if not each.startswith(("Operating System", "Programming Language :: Rust"))
    ]
    project["classifiers"] = [*kept, *CLASSIFIERS]
    print(BACKEND)
    print("\n".join(table("project", project)))


if __name__ == "__main__":
    main(*sys.argv[1:])
