"""Untrusted files of weights: archives, pickles, folders, repositories of the Hugging Face hub."""
