"""Label setting: the optimum of a small step by swap and recompute."""
