"""Job scripts as text: read, written, and translated from one scheduler's words to another's."""
