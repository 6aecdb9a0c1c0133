"""Network definitions that no library provides."""
