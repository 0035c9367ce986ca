"""One screen of the dashboard in each file."""
