"""The eviction pass: one run over the step that never leaves the budget, under prices that a policy sets."""
