"""What a plan means and costs: lowered to entries, simulated, checked on its own, and scored thousands of times."""
