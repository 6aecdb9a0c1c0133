"""Attention capture, losses, layout guidance and mask annotation (Eq. 2, 3, 5, 6, 7)."""
