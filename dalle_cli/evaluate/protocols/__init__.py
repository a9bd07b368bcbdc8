"""Protocols of `dalle evaluate`, one per file."""
