"""Walk through a function's nodes in the order of execution, knowing what its names stand for.

An interpreter of names only: no value is computed and nothing is run.
"""

from __future__ import annotations

import ast
import sys
from typing import Any, Dict, List, Tuple

from perfect_client.analysis.scopes import (
    Known,
    Local,
    Made,
    Many,
    Scope,
    Value,
    any_of,
    attribute,
    code_within,
    column,
    elements,
)


class Walker(ast.NodeVisitor):
    """Visiting an expression gives its ``Value``. ``loops`` counts the loops around the node that is being visited."""

    def __init__(self) -> None:
        self.scope = Scope(None, {}, "", None)
        self.loops = 0
        self._attributes: Dict[Tuple[type, str], Value] = {}

    # -------------------------------------------------------------------------------------------------- expressions

    def visit_Name(self, node: ast.Name) -> Value:
        return self.scope.get(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> Value:
        base = self.value(node.value)
        set_by_code = self._attributes.get((base.cls, node.attr)) if isinstance(base, Made) else None
        return set_by_code or attribute(base, node.attr)

    def visit_Lambda(self, node: ast.Lambda) -> Value:
        return Local(node, self.scope, self.scope.qualname, code_within(self.scope.code, node))

    def visit_IfExp(self, node: ast.IfExp) -> Value:
        self.visit(node.test)
        return any_of([self.visit(node.body), self.visit(node.orelse)])

    def visit_BoolOp(self, node: ast.BoolOp) -> Value:
        return any_of([self.visit(value) for value in node.values])

    def _visit_sequence(self, node: Any) -> Value:
        return any_of([self.visit(element) for element in node.elts])

    visit_List = visit_Tuple = visit_Set = _visit_sequence

    def visit_Dict(self, node: ast.Dict) -> Value:
        for key in node.keys:
            if key is not None:
                self.visit(key)
        return any_of([self.visit(value) for value in node.values])

    def visit_Subscript(self, node: ast.Subscript) -> Value:
        value, index = self.visit(node.value), node.slice
        self.visit(index)
        constant = getattr(getattr(index, "value", None) if type(index).__name__ == "Index" else index, "value", None)
        if isinstance(value, Known) and isinstance(value.value, (dict, list, tuple)):
            try:
                return Known(value.value[constant])  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                return elements(value)
        return value if isinstance(value, Many) else None

    def visit_Await(self, node: ast.Await) -> Value:
        return self.value(node.value)

    def visit_Starred(self, node: ast.Starred) -> Value:
        return elements(self.value(node.value)) or self.value(node.value)

    def value(self, node: ast.expr) -> Value:
        found: Value = self.visit(node)
        return found

    def visit_NamedExpr(self, node: ast.NamedExpr) -> Value:
        value = self.value(node.value)
        self.assign(node.target, value)
        return value

    def _visit_comprehension(self, node: Any) -> Value:
        outer = self.scope
        self.scope = Scope(outer, outer.outside, outer.qualname, outer.code)
        loops = self.loops
        for generator in node.generators:
            self.assign(generator.target, elements(self.visit(generator.iter)))
            self.loops += 1
            self.visit_all(generator.ifs)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        made = any_of([self.visit(part) for part in parts])
        self.scope, self.loops = outer, loops
        return made

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _visit_comprehension

    # --------------------------------------------------------------------------------------------------- statements

    def visit_all(self, nodes: List[Any]) -> None:
        for node in nodes:
            self.visit(node)

    def assign(self, target: ast.AST, value: Value) -> None:
        if isinstance(target, ast.Name):
            known = self.scope.names.get(target.id)
            self.scope.names[target.id] = any_of([known, value]) if self.loops or known is None else value
        elif isinstance(target, (ast.Tuple, ast.List)):
            for number, element in enumerate(target.elts):
                self.assign(element, column(value, number))
        elif isinstance(target, ast.Starred):
            self.assign(target.value, value)
        elif isinstance(target, ast.Attribute):
            base = self.value(target.value)
            if isinstance(base, Made):
                known = self._attributes.get((base.cls, target.attr))
                self._attributes[base.cls, target.attr] = any_of([known, value])
        else:
            self.generic_visit(target)

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, (ast.Tuple, ast.List)) and _unpacks(node):
            for target, element in zip(node.targets[0].elts, node.value.elts):  # type: ignore[attr-defined]
                self.assign(target, self.value(element))
            return
        value = self.value(node.value)
        for target in node.targets:
            self.assign(target, value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.value(node.value))

    def visit_For(self, node: Any) -> None:
        self.assign(node.target, elements(self.visit(node.iter)))
        self.loops += 1
        self.visit_all(node.body)
        self.loops -= 1
        self.visit_all(node.orelse)

    visit_AsyncFor = visit_For

    def visit_While(self, node: ast.While) -> None:
        self.loops += 1
        self.visit(node.test)
        self.visit_all(node.body)
        self.loops -= 1
        self.visit_all(node.orelse)

    def _visit_with(self, node: Any) -> None:
        for item in node.items:
            value = self.value(item.context_expr)
            if item.optional_vars is not None:
                self.assign(item.optional_vars, value)
        self.visit_all(node.body)

    visit_With = visit_AsyncWith = _visit_with

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            self.scope.returned.append(self.value(node.value))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """A class made inside a function is left to the run."""

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.split(".")[0]
            self.scope.names[alias.asname or name] = Known(sys.modules[name]) if name in sys.modules else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        package = str(self.scope.outside.get("__package__") or "").split(".")
        above = package[: len(package) - node.level + 1] if node.level else []
        module = sys.modules.get(".".join([*above, *([node.module] if node.module else [])]))
        for alias in node.names:  # a module that is not imported yet stays so: only the run may import it
            found = attribute(Known(module), alias.name) if module is not None else None
            self.scope.names[alias.asname or alias.name] = found


def _unpacks(node: ast.Assign) -> bool:
    target, value = node.targets[0], node.value
    return (
        len(node.targets) == 1
        and isinstance(target, (ast.Tuple, ast.List))
        and isinstance(value, (ast.Tuple, ast.List))
        and len(target.elts) == len(value.elts)
        and not any(isinstance(element, ast.Starred) for element in (*target.elts, *value.elts))
    )
