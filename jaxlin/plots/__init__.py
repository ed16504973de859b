"""Pictures: they draw finished results, compute nothing, and know no global state."""
