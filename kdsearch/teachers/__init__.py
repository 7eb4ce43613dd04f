"""Teachers: where they come from, how one is built, and their signals."""
