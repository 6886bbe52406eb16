"""The default planner: strategies that look for prices, decisions and exchanges, all asking one frozen problem."""
