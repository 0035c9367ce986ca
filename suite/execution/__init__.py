"""The controller of a study and the executors that run its trials."""
