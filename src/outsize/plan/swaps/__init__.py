"""Swaps alone: the slack rule, the distance rule, and when a transfer writes, frees, fetches and waits."""
