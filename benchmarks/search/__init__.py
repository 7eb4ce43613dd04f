"""The search benchmark: a table of trained configurations, and searches replayed on it."""
