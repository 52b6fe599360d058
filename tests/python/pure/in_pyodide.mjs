// Runs Python code in npm's pyodide with the package's sources in its file system.
//
// usage: node --experimental-wasm-stack-switching in_pyodide.mjs FOLDER-OF-PYODIDE FOLDER-OF-FIBERBACK CODE-FILE
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join, relative } from "node:path";

const [pyodideFolder, packageFolder, codeFile] = process.argv.slice(2);
const { loadPyodide } = await import(join(pyodideFolder, "pyodide.mjs"));
const pyodide = await loadPyodide({ indexURL: pyodideFolder });

function copy(folder) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    const there = join("/sources/fiberback", relative(packageFolder, path));
    if (statSync(path).isDirectory()) {
      pyodide.FS.mkdirTree(there);
      copy(path);
    } else if (name.endsWith(".py")) {
      pyodide.FS.writeFile(there, readFileSync(path));
    }
  }
}

pyodide.FS.mkdirTree("/sources/fiberback");
copy(packageFolder);
pyodide.runPython("import sys; sys.path.insert(0, '/sources')");
await pyodide.runPythonAsync(readFileSync(codeFile, "utf8"));
