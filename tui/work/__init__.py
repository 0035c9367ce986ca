"""Commands that the dashboard starts: their forms and words, their processes, and a model that predicts."""
