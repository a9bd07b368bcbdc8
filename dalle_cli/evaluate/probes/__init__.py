"""Protocols of `dalle probe`, one per file: what embeddings hold, and unCLIP compared with GLIDE."""
