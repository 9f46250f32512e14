"""The pool of worker processes of one machine."""
