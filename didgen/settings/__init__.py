"""Every key of a run, declared once."""
