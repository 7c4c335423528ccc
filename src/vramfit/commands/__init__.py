"""Command lines of engines, read into the words of a request and written back; nothing is ever executed."""
