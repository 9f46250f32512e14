"""Arrays larger than memory: read block by block, on any executor, within a budget.

A `source` says what the array is and reads parts of it; a `grid` cuts it into blocks; a
`reduction` makes one value of them, tile by tile and by a fixed tree; a `plan` counts the bytes
before anything is read. `blocks` is the front.
"""
