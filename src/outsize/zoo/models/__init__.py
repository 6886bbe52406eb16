"""The networks, one family per file, written for reading."""
