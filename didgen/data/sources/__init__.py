"""Where images come from: phantoms, the ISIC 2018 archives, or a manifest of the user's own."""
