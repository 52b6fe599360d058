"""The names in a stub: what it imports, what it declares, and which of them others of its names would hide."""

from __future__ import annotations

from collections.abc import Iterable


class Names:
    """`taken` are the names that the stub's module has at its top; `own` is the module whose stub it is."""

    def __init__(self, own: str | None, taken: Iterable[str]) -> None:
        self._own = own
        self._taken = {*taken}
        self._members: set[str] = set()
        self._modules: set[tuple[str, str | None]] = set()
        self._from: dict[str, set[str]] = {}
        self._exported: list[str] = []
        self._declared: dict[tuple[str, str, str], str] = {}

    def enter_class(self, members: Iterable[str]) -> None:
        """From now on names stand in the body of a class with these members."""
        self._members = {*members}

    def _is_hidden(self, name: str) -> bool:
        return name in self._taken or name in self._members

    def builtin(self, name: str) -> str:
        return self.of("builtins", name) if self._is_hidden(name) else name

    def plain(self, module: str, name: str) -> str:
        """A name of a module that everybody knows, such as `typing`."""
        if self._is_hidden(name):
            return self.of(module, name)
        self._from.setdefault(module, set()).add(name)
        return name

    def of(self, module: str, name: str) -> str:
        """A name of any module, with the module's."""
        if module == self._own:
            return name
        if module == "builtins" and not self._is_hidden(name):
            return name
        if self._is_hidden(module.partition(".")[0]):
            alias = "_" + module.replace(".", "_")
            self._modules.add((module, alias))
            return f"{alias}.{name}"
        self._modules.add((module, None))
        return f"{module}.{name}"

    def free(self, wanted: str) -> str:
        """A name for something new at the top: the one that is wanted, or that with a number."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name

    def variable(self, kind: str, name: str, rest: str) -> str:
        """A type variable that is declared so at the top."""
        known = self._declared.get((kind, name, rest))
        if known is None:
            wanted = name if name.startswith("_") else f"_{name}"
            known = self._declared[kind, name, rest] = self.free(wanted)
        return known

    def export(self, line: str) -> None:
        """An import that is part of the module's face."""
        self._exported.append(line)

    def header(self) -> list[str]:
        """The lines of imports and declarations."""
        declared = [
            f'{name} = {kind}("{name}"{rest})' for (kind, _, rest), name in self._declared.items()
        ]
        imported = [
            f"import {module} as {alias}" if alias else f"import {module}"
            for module, alias in sorted(self._modules, key=lambda each: (each[0], each[1] or ""))
        ]
        imported += [
            f"from {module} import {', '.join(sorted(names))}"
            for module, names in sorted(self._from.items())
        ]
        groups = [sorted(imported), sorted(self._exported), declared]
        return [line for group in groups if group for line in [*group, ""]]
