"""The other planners: units (method 4) and the exact program of small steps."""
