"""The reference of the modules that serve a library or stand in for one, read from their sources.

Not imported, as the rest of the reference is: that would want all of these libraries. Docstrings are reStructuredText.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pyext/python/fiberback"
HEAD = """# Modules for libraries

What serves a library, and what stands in for one, with types and sources. The [package's own names](api.md) are on a page of
their own; [recipes](recipes/README.md) show most of these at work.
"""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def modules() -> Iterator[tuple[str, Path]]:
    """Public modules whose first line says whom they serve."""
    for path in sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("*/__init__.py")]):
        name = path.parent.name if path.name == "__init__.py" else path.stem
        about = ast.get_docstring(parsed(path)) or ""
        if not name.startswith("_") and about.startswith(("Serves ", "Stands in for ")):
            yield name, path


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def names(tree: ast.Module) -> list[str]:
    """`__all__`, or else the public classes and functions."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return sorted(ast.literal_eval(node.value))
    return sorted(each.name for each in definitions(tree.body) if not each.name.startswith("_"))


def definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, Definition):
            yield node
        elif isinstance(node, ast.If | ast.Try):
            yield from definitions(node.body)


def find(name: str, path: Path) -> tuple[Definition, Path] | None:
    """What `name` is in the module `path`, and where; None for what another package has."""
    tree = parsed(path)
    for node in definitions(tree.body):
        if node.name == name:
            return node, path
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                    for other in (base.with_suffix(".py"), base / "__init__.py"):
                        if other.is_file():
                            return find(alias.name, other)
    return None


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool) -> str:
    arguments = ast.unparse(node.args)
    if method and not any(ast.unparse(mark) == "staticmethod" for mark in node.decorator_list):
        arguments = arguments.partition(", ")[2] if ", " in arguments else ""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    return f"({arguments}){returns}"


def directive(node: Definition, name: str, path: Path, kind: str) -> Iterator[str]:
    """`kind`: as what it is documented, below the module or class that has been named."""
    if isinstance(node, ast.ClassDef):
        made = next((each for each in definitions(node.body) if each.name == "__init__"), None)
        shown = signature(made, method=True) if isinstance(made, ast.FunctionDef) else ""
    else:
        shown = signature(node, method=kind == "method") if kind != "property" else ""
    yield f".. py:{kind}:: {name}{shown}"
    if isinstance(node, ast.AsyncFunctionDef):
        yield "   :async:"
    yield ""
    text = ast.get_docstring(node) or ""
    if isinstance(node, ast.ClassDef) or kind == "function":
        text += f"\n\n`Source <repo:{path.relative_to(ROOT).as_posix()}#{node.name}>`__"
    yield textwrap.indent(text.strip(), "   ")
    yield ""
    if isinstance(node, ast.ClassDef):
        for each in definitions(node.body):
            if each.name.startswith("_") or not ast.get_docstring(each):
                continue
            is_property = any(ast.unparse(mark) == "property" for mark in each.decorator_list)
            inner = directive(each, each.name, path, "property" if is_property else "method")
            yield from (textwrap.indent(line, "   ") for line in inner)


def page() -> str:
    out = [HEAD]
    for name, path in modules():
        tree = parsed(path)
        out += [
            f"## fiberback.{name}",
            "",
            "````{eval-rst}",
            f".. py:module:: fiberback.{name}",
            "",
        ]
        out += [ast.get_docstring(tree) or "", ""]
        for each in names(tree):
            found = find(each, path)
            if found is None:
                continue
            node, where = found
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            out += directive(node, each, where, kind)
        out += ["````", ""]
    return "\n".join(out)
