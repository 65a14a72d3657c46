"""Providers: one file and one row each."""
