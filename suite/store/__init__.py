"""The files of a study: atomic writes, event logs, locks, repair. No torch."""
