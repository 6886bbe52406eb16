"""The `outsize` command: one file per verb, wiring only."""
