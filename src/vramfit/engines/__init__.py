"""Profiles of engines by version, each fact with its source; ``find_profile`` picks one."""
