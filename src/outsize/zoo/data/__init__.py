"""The data sets: made from what every machine already holds, so nothing is ever downloaded."""
