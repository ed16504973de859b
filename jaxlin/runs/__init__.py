"""Run folders from Python."""
