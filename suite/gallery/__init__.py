"""Published results: pages, tables and pictures that are made from finished studies, and quotes of their figures."""
