"""Reduction by a fixed binary tree, so that its result does not depend on who computed what.

Node ``(level, k)`` of the tree stands for the tasks ``k * 2**level`` up to, not including,
``(k + 1) * 2**level``; it is ``reduce(node(level-1, 2k), node(level-1, 2k+1))``. Consecutive
tasks is a few whole nodes, whoever has two neighbours may join them, and at the end the nodes that
are left, at most one a level, are joined from the right. The order of the operations is thus a
function of the number of tasks alone: the same bits for any place, workers and chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Fold", "Node", "fold"]

#: (level, position, value)
Node = tuple[int, int, Any]


def fold(reduce: Callable[[Any, Any], Any], first: int, values: Sequence[Any]) -> list[Node]:
    """The fewest whole nodes for the values of tasks ``first``, ``first + 1``, ...

    >>> fold(lambda a, b: f"({a}{b})", 0, "abcde")
    [(2, 0, '((ab)(cd))'), (0, 4, 'e')]
    >>> fold(lambda a, b: f"({a}{b})", 1, "bcd")
    [(0, 1, 'b'), (1, 1, '(cd)')]
    """
    nodes: list[Node] = []
    for position, value in enumerate(values, first):
        level = 0
        while position % 2 and nodes and nodes[-1][:2] == (level, position - 1):
            value = reduce(nodes.pop()[2], value)
            level, position = level + 1, position // 2
        nodes.append((level, position, value))
    return nodes


class Fold:
    """The tree of a whole map, growing as nodes arrive in any order.

    >>> tree = Fold(lambda a, b: f"({a}{b})")
    >>> tree.add(fold(tree.reduce, 2, "cde"))
    >>> tree.add(fold(tree.reduce, 0, "ab"))
    >>> tree.result()
    '(((ab)(cd))e)'
    """

    def __init__(self, reduce: Callable[[Any, Any], Any]) -> None:
        self.reduce = reduce
        self._nodes: dict[tuple[int, int], Any] = {}

    def add(self, nodes: list[Node]) -> None:
        """Take nodes in; each is joined with its neighbour as soon as both are there."""
        for level, position, value in nodes:
            while (level, position ^ 1) in self._nodes:
                other = self._nodes.pop((level, position ^ 1))
                value = self.reduce(other, value) if position % 2 else self.reduce(value, other)
                level, position = level + 1, position // 2
            self._nodes[level, position] = value

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def result(self) -> Any:
        """The reduction of everything, once all tasks are in. There must be at least one."""
        ordered = sorted(self._nodes.items(), key=lambda node: node[0][1] << node[0][0])
        value = ordered.pop()[1]
        while ordered:
            value = self.reduce(ordered.pop()[1], value)
        return value
