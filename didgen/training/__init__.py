"""The training core: one resumable loop, its saved state, optimisation, processes and logs."""
