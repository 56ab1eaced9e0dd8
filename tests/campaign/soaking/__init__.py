"""The parts of the soak: what runs, the faults, the samples, their trends and plots, and what must hold at the end."""
