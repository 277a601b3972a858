"""Commands for the maintainers of the course; run them in the checkout, as `python -m tools.NAME`."""

import qathelpers  # noqa: F401, first, because it silences a warning that importing Brevitas would log
