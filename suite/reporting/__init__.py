"""Reports with plots, and tables for other tools."""
