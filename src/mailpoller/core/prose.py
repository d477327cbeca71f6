"""The docstrings of a class's attributes: the strings that stand beneath them in its source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import lru_cache


@lru_cache(maxsize=256)
def attribute_docstrings(cls: type) -> Mapping[str, str]:
    """Attribute -> docstring, of the class and of those it inherits from; who annotates an attribute anew documents
    it anew.

    Read when somebody asks, because few do: pydantic's ``use_attribute_docstrings`` reads the source of every block
    at each start, which was a seventh of it. A class without source has no docstrings.
    """
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        own = _own(one)
        for name in inspect.get_annotations(one):
            found.pop(name, None)
            if name in own:
                found[name] = own[name]
    return found


def _own(cls: type) -> dict[str, str]:
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    if not isinstance(definition, ast.ClassDef):
        return {}
    pairs = zip(definition.body, definition.body[1:], strict=False)
    return {
        field.target.id: inspect.cleandoc(beneath.value.value)
        for field, beneath in pairs
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(beneath, ast.Expr)
        and isinstance(beneath.value, ast.Constant)
        and isinstance(beneath.value.value, str)
    }
