"""An expression as a graph: every node stands once, after the nodes that it uses."""

from __future__ import annotations

from typing import Any, NamedTuple

from fanfold.expressions.operations import REDUCTIONS

__all__ = ["Graph", "Node"]


class Node(NamedTuple):
    """An operation on other nodes, given by their positions; or a leaf.

    Leaves are ``"variable"`` (``detail`` is its name) and ``"value"`` (``detail`` is a number or an
    array). The detail of a reduction is ``(axis, keepdims)``.
    """

    operation: str
    arguments: tuple[int, ...] = ()
    detail: Any = None

    @property
    def reduces(self) -> bool:
        return self.operation in REDUCTIONS


class Graph:
    """Nodes in the order of their use; the last one that was added is not always the ``root``."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.plans: dict[Any, Any] = _Few()
        self.root = -1
        self._known: dict[Any, int] = {}

    def add(self, node: Node) -> int:
        """The position of the node; an equal one is not added again."""
        key: Any = node
        if node.operation == "value":  # 2, 2.0 and True are equal, and are not the same
            key = (type(node.detail), _identity(node.detail))
        if key not in self._known:
            self._known[key] = len(self.nodes)
            self.nodes.append(node)
        return self._known[key]

    def names(self) -> list[str]:
        """The variables, in the order in which they appear."""
        return [node.detail for node in self.nodes if node.operation == "variable"]

    def below(self, roots: tuple[int, ...], known: dict[int, Any]) -> list[int]:
        """Positions of what ``roots`` need, up to what is known, in the order of their use."""
        needed = set(roots)
        for position in range(max(roots), -1, -1):
            if position in needed and position not in known:
                needed.update(self.nodes[position].arguments)
        return sorted(needed)


class _Few(dict[Any, Any]):
    """Programs that have been made from a graph; now and then it forgets them all."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if len(self) >= 64:
            self.clear()
        super().__setitem__(key, value)


def _identity(value: Any) -> Any:
    """What tells a number from others: its digits and sign; an array is only itself."""
    return repr(value) if isinstance(value, (bool, int, float, complex)) else id(value)
