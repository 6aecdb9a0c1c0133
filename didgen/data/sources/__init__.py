"""Where images come from: phantoms, challenge archives, published data sets, the user's own."""
