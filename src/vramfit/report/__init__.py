"""Chooses words and colours for people, never numbers."""
