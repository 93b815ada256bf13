"""Shared-prefix attention: keys and values that many sequences share are read once for all."""
