"""The exercises of the notebooks, one module per chapter; a notebook imports its own, as in `from ... import ch02`."""
