"""What the dashboard knows: reads the results directory, filters and sorts. Independent of Textual."""
