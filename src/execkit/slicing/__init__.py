"""Working large orders in slices."""
