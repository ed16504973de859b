"""Pages: one self-contained HTML file each, made from finished results."""
