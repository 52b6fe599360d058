"""A program that embeds Python, finalizes it and begins another interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig

import pytest
from support import only_fiberback

pytestmark = [
    only_fiberback,
    pytest.mark.skipif(
        sys.version_info[:2] == (3, 12),
        reason="asyncio crashes in a second interpreter of 3.12.1, with or without this package",
    ),
]

PROGRAM = r"""
#include <Python.h>
#include <stdlib.h>

int main(int count, char **codes) {
    for (int i = 1; i < count; i++) {
        PyConfig config;
        PyConfig_InitPythonConfig(&config);
        PyConfig_SetBytesString(&config, &config.program_name, getenv("EXECUTABLE"));
        PyStatus status = Py_InitializeFromConfig(&config);
        PyConfig_Clear(&config);
        if (PyStatus_Exception(status)) Py_ExitStatusException(status);
        if (PyRun_SimpleString(codes[i]) != 0) return 3;
        if (Py_FinalizeEx() != 0) return 4;
    }
    return 0;
}
"""

USES_ALL = """
import asyncio, fiberback

async def work():
    await asyncio.sleep(0)
    return 42

async def main():
    return fiberback.await_(work())

assert fiberback.run(main()) == asyncio.run(main()) == fiberback.await_(work()) == 42
fiberback.enable(everywhere=True)
assert asyncio.run(main()) == 42
"""

IS_REFUSED = """
try:
    import fiberback
except ImportError as error:
    assert "[fiberback:second-interpreter]" in str(error), error
else:
    raise AssertionError("was loaded again")
"""

RUNS_A_LOOP = """
import asyncio
asyncio.run(asyncio.sleep(0.01))
"""


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedder")
    source = folder / "embedder.c"
    source.write_text(PROGRAM)
    get = sysconfig.get_config_var
    version = get("LDVERSION")
    command = ["cc", str(source), "-o", str(folder / "embedder"), f"-I{get('INCLUDEPY')}"]
    command += [f"-L{get('LIBDIR')}", f"-L{get('LIBPL')}", f"-Wl,-rpath,{get('LIBDIR')}"]
    command += ["-rdynamic", f"-lpython{version}", *get("LIBS").split(), *get("SYSLIBS").split()]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode != 0 and "cannot find -lpython" in built.stderr:
        pytest.skip("this CPython has no library to embed")
    assert built.returncode == 0, built.stderr
    return folder / "embedder"


def run(embedder, *codes):
    # An embedded interpreter does not reliably find its virtual environment.
    paths = [path for path in sys.path if path.endswith("site-packages")]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    env = dict(os.environ, EXECUTABLE=sys._base_executable, PYTHONPATH=os.pathsep.join(paths))
    done = subprocess.run([embedder, *codes], capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert done.stderr == ""


def test_is_refused_by_a_second_interpreter(embedder):
    run(embedder, USES_ALL, IS_REFUSED)


@pytest.mark.skipif(
    sys.version_info < (3, 12),
    reason="3.11's _asyncio keeps its state in statics, which what this package keeps keeps alive",
)
def test_loops_of_a_second_interpreter_are_left_alone(embedder):
    run(embedder, USES_ALL, RUNS_A_LOOP, IS_REFUSED)
