"""The fault matrix: workers struck at exact moments in a breaking world, and what is on record then."""
