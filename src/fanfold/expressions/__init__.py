"""Expressions of arrays: read, typed as NumPy would, and computed tile by tile in threads.

A text or a function becomes a `graph.Graph` (`text`, `trace`). Pieces of it without a reduction
become a `program.Program`: steps with their dtypes. `elementwise` and `reductions` run programs
over the tiles of their arrays, `machine` turns some of them into machine code, `gpu` has CuPy run
the graph. The front door is `front.evaluate`.
"""
