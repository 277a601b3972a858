"""The parts of the training panel: its form, the training in a thread, and what it shows of it."""
