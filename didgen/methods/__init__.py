"""Methods that turn requests into synthetic images and masks."""
