"""Entries of a published version in registries of others, each by its own client library.

`base.py` says what every registry has; a library is imported only where its option is given.
"""
