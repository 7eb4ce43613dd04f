"""Distilling: losses, schemes, and the one training loop."""
