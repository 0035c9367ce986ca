"""The final evaluation on test images, and the repetition of a trial."""
