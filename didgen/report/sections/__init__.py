"""The report's sections, in the order of the page; each reads its part of a run's folder."""
