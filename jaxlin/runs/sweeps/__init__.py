"""Many heads fitted in one pass: their options, fits, choice, one test, and page."""
